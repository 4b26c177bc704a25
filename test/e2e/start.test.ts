import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { beside, start } from "../support/program.ts"

const main = beside(import.meta.url, "../../examples/start/main.ts")

const clients = [
  "slow request",
  "pipelined requests",
  "chunked stream",
  "upload",
  "event stream",
  "WebSocket",
  "keep-alive, in use",
  "keep-alive, idle"
]

/** The table that it printed: the outcome of each client. */
const outcomes = (output: string): Record<string, string | undefined> =>
  Object.fromEntries(
    clients.map((client) => [client, new RegExp(`^${client} +-?\\d+ ms +(ok|LOST|TOO EARLY) `, "m").exec(output)?.[1]])
  )

describe("npm start", () => {
  it.live("shows every client with all that it was to get, and exits 0", () =>
    Effect.gen(function* () {
      const program = yield* start(main)
      const { code } = yield* program.ended
      const output = program.output()
      assert.deepStrictEqual(outcomes(output), Object.fromEntries(clients.map((client) => [client, "ok"])), output)
      assert.match(output, /Shutting down \(SIGTERM\)/)
      assert.match(output, /The server ended -?\d+ ms (after|before) the last of them, with exit code 0\./)
      assert.match(output, /Nothing was lost\./)
      assert.strictEqual(code, 0, output)
    })
  )

  it.live("shows what is lost where the server destroys its connections, and exits 1", () =>
    Effect.gen(function* () {
      const program = yield* start(main, { env: { KMS_DEMO_BREAK: "1" } })
      const { code } = yield* program.ended
      const output = program.output()
      const seen = outcomes(output)
      // What was in the middle of something is lost for sure, whatever the moment.
      for (const client of [
        "slow request",
        "pipelined requests",
        "chunked stream",
        "upload",
        "event stream",
        "WebSocket"
      ]) {
        assert.strictEqual(seen[client], "LOST", output)
      }
      // It is the loss that makes it fail, not the server's own exit code.
      assert.match(output, /with exit code 0\.\n\d of 8 clients LOST something\./)
      assert.strictEqual(code, 1, output)
    })
  )
})
