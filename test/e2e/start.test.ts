import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { beside, start } from "../support/program.ts"

const main = beside(import.meta.url, "../../examples/start/main.ts")

/** Those that are in the middle of something when the signal comes. */
const busy = [
  "HTTP, slow",
  "HTTP, pipelined",
  "HTTP, stream",
  "HTTP, upload",
  "HTTP, events",
  "WebSocket",
  "TCP, at work",
  "TCP, idle",
  "Unix, at work",
  "Unix, idle",
  "RPC, call",
  "RPC, late call",
  "RPC, stream",
  "cron job"
]

/** Those that may have what they were to get, and see a connection that ends. */
const between = ["HTTP, in use", "HTTP, idle"]

/** The table that it printed: the outcome of each client, in the order of the lines. */
const outcomes = (output: string): Record<string, string> =>
  Object.fromEntries(
    Array.from(output.matchAll(/^(\S.*?) +-?\d+ ms +(ok|LOST|TOO EARLY) /gm), ([, client, outcome]) => [
      client,
      outcome
    ])
  )

const all = (clients: ReadonlyArray<string>, outcome: string) =>
  Object.fromEntries(clients.map((client) => [client, outcome]))

describe("npm start", () => {
  it.live("shows every client of every listener with all that it was to get, and exits 0", () =>
    Effect.gen(function* () {
      const program = yield* start(main)
      const { code } = yield* program.ended
      const output = program.output()
      assert.deepStrictEqual(outcomes(output), all([...busy, ...between], "ok"), output)
      assert.match(output, /Shutting down \(SIGTERM\)/)
      assert.match(output, /The server ended -?\d+ ms (after|before) the last of them, with exit code 0\./)
      assert.match(output, /Nothing was lost\./)
      // An address may be too long for a line, but nothing in the table is.
      const table = output.slice(output.indexOf("\nclient "))
      for (const line of table.split("\n")) assert.isAtMost(line.length, 80, line)
      assert.strictEqual(code, 0, output)
    })
  )

  it.live("shows what is lost where the server destroys its connections, and exits 1", () =>
    Effect.gen(function* () {
      const program = yield* start(main, { env: { KMS_DEMO_BREAK: "1" } })
      const { code } = yield* program.ended
      const output = program.output()
      const seen = outcomes(output)
      assert.hasAllKeys(seen, [...busy, ...between], output)
      // What was in the middle of something is lost for sure, whatever the moment.
      for (const client of busy) assert.strictEqual(seen[client], "LOST", output)
      // It is the loss that makes it fail, not the server's own exit code.
      assert.match(output, /with exit code 0\.\n\d+ of 16 LOST something\./)
      assert.strictEqual(code, 1, output)
    })
  )
})
