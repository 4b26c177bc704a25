/** The invariants of DESIGN.md that need a process. The others are in test/invariants.test.ts. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Peers from "../support/peers.ts"
import { beside, type Program, start } from "../support/program.ts"

const app = beside(import.meta.url, "./fixtures/app.ts")

const started = (env: Record<string, string> = {}) =>
  Effect.tap(start(app, { env }), (program) => program.printed(/^started$/m))

const connect = (program: Program, listener: string) =>
  Effect.flatMap(program.printed(new RegExp(`${listener} on http://[^:]+:(\\d+)`)), (match) =>
    Peers.connect(Number(match[1]))
  )

describe("invariants", () => {
  it.live("invariant 4: the process exits as soon as the last work in flight has ended", () =>
    Effect.gen(function* () {
      // What could be waited for is far longer: a quiet period, a peer that is to close, a limit, Node's five seconds.
      const program = yield* started({
        LISTENER: JSON.stringify({ quietPeriod: 20_000, closeTimeout: 20_000 }),
        OPTIONS: JSON.stringify({ timeout: 60_000, forceTimeout: 20_000 })
      })
      const peer = yield* connect(program, "api")
      peer.get("/slow?ms=800")
      yield* program.printed(/begun/)
      yield* program.kill("SIGTERM")
      const { headers } = yield* peer.response
      const answered = performance.now()
      // So that nobody waits for its connection.
      assert.strictEqual(headers["connection"], "close")
      const { at, code } = yield* program.ended
      assert.strictEqual(code, 0)
      assert.isBelow(at - answered, 4000)
    }).pipe(Effect.scoped)
  )

  it.live("invariant 5: the process is gone by timeout + forceTimeout, whatever holds on", () =>
    Effect.gen(function* () {
      const program = yield* started({
        HANG: "1",
        OPTIONS: JSON.stringify({ timeout: 1000, forceTimeout: 1000, lameDuck: 300 })
      })
      const stuck = yield* connect(program, "api")
      const raw = yield* connect(program, "admin")
      const half = yield* connect(program, "api")
      stuck.get("/stuck")
      raw.get("/never")
      half.send("GET / HT")
      yield* Effect.all([program.printed(/begun \/stuck/), program.printed(/begun admin/)])
      const at = performance.now()
      yield* program.kill("SIGTERM")
      const ended = yield* program.ended
      assert.strictEqual(ended.code, 1)
      assert.isBelow(ended.at - at, 8000)
      assert.match(program.output(), /The deadline has come\. Cut: .*GET \/stuck from /)
      assert.match(program.output(), /The deadline has come\. Cut: .*GET \/never from /)
    }).pipe(Effect.scoped)
  )

  it.live("invariant 8: nothing of the library keeps a process alive, and a stopped server is garbage", () =>
    Effect.gen(function* () {
      const program = yield* start(beside(import.meta.url, "./fixtures/leftovers.ts"), {
        command: [process.execPath, "--expose-gc"]
      })
      const said = yield* program.printed(/handles \d+/)
      const at = performance.now()
      const ended = yield* program.ended
      assert.strictEqual(ended.code, 0)
      assert.isBelow(ended.at - at, 4000)
      assert.match(program.output(), /listeners 0\n/)
      assert.match(program.output(), /collected 3 of 3\n/)
      assert.strictEqual(said[0], "handles 0")
    }).pipe(Effect.scoped)
  )
})
