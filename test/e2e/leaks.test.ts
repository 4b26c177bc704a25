/**
 * After a drain nothing of the library is left: no handle, no timer, no listener on `process`, and no memory, however often
 * a listener has been started and stopped.
 *
 * The heap is compared without the compilers of V8 and with all its bytecode kept: what they make while a program gets warm
 * would be a hundred times what is looked for. What is left of growth then, some ten bytes a cycle, is in tables of V8
 * whose size doubles now and then; the number of objects stays the same.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { beside, start } from "../support/program.ts"

const fixture = beside(import.meta.url, "./fixtures/leaks.ts")

/** Bytes a cycle. One array of 512 bytes that is kept for each is more. */
const bound = 256

/** Ten seconds on an idle machine. */
const patience = 120_000

const kinds = ["http", "https", "http2", "node", "health", "tcp", "tls", "unix", "hijacked", "foreign", "rpc"]

/** Whose heap is compared in every run of the tests; that of all takes a minute (`KMS_LEAKS=all`). */
const compared = process.env["KMS_LEAKS"] === "all" ? kinds : ["http", "tcp"]

interface Left {
  readonly way: string
  readonly before: Record<string, number>
  readonly after: Record<string, number>
}

/** Starts and stops a listener, 200 times to get warm and then `cycles` times; what the program said. */
const run = (kind: string, cycles: number, env: Record<string, string> = {}) =>
  Effect.gen(function* () {
    const flags = ["--expose-gc", "--no-opt", "--no-maglev", "--no-sparkplug", "--no-flush-bytecode"]
    const program = yield* start(fixture, {
      command: [process.execPath, ...flags],
      args: [kind, cycles === 0 ? "0" : "200", String(cycles)],
      env
    })
    const grown = yield* program.printed(/^grown (.*)$/m)
    const { perCycle } = JSON.parse(grown[1]!) as { readonly perCycle: number }
    const left = Array.from(program.output().matchAll(/^left (.*)$/gm), (match) => JSON.parse(match[1]!) as Left)
    return { program, left, perCycle }
  })

for (const kind of kinds) {
  const cycles = compared.includes(kind) ? 1000 : 0
  const heap = cycles > 0 ? ", the heap does not grow over 1,000 of them" : ""
  it.live(
    `${kind}: nothing is in use after a drain${heap}, and the process ends by itself`,
    () =>
      Effect.gen(function* () {
        const { left, perCycle, program } = yield* run(kind, cycles)
        assert.deepStrictEqual(
          left.map(({ way }) => way),
          ["alone", "under its own shutdown", "as a part"]
        )
        for (const { after, before } of left) assert.deepStrictEqual(after, before)
        if (cycles > 0) assert.isBelow(perCycle, bound, "bytes a cycle")
        assert.deepInclude(yield* program.ended, { code: 0, signal: null })
      }).pipe(Effect.scoped),
    patience
  )
}

describe("what would be seen", () => {
  it.live(
    "512 bytes that are kept for each cycle",
    () =>
      Effect.gen(function* () {
        const { perCycle } = yield* run("tcp", 1000, { LEAK: "512" })
        assert.isAbove(perCycle, bound)
      }).pipe(Effect.scoped),
    patience
  )

  const leaks = { handle: "TCPServerWrap", timer: "Timeout", signal: "on SIGTERM" }
  for (const [leak, name] of Object.entries(leaks)) {
    it.live(`a ${leak} that is left behind`, () =>
      Effect.gen(function* () {
        const { left } = yield* run("tcp", 0, { LEAK: leak })
        assert.strictEqual(left[0]!.after[name], (left[0]!.before[name] ?? 0) + 1)
      }).pipe(Effect.scoped)
    )
  }
})
