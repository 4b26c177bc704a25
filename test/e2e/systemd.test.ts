import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { ask, fileOf, listening } from "../support/examples.ts"
import { start } from "../support/program.ts"
import { load, systemd } from "../support/systemd.ts"

const file = fileOf("systemd", "main.ts")

/** As the units have them, and not in the order in which the program looks for them. */
const names = ["effect-kms-example-health.socket", "effect-kms-example.socket"].map(
  (unit) => /^FileDescriptorName=(.*)$/m.exec(readFileSync(fileOf("systemd", unit), "utf8"))![1]!
)

/** What the program of a process answers. */
const from = (pid: number): string => `Hello from ${pid}\n`

const clients = 24
const restarts = 3

describe("the systemd example", () => {
  it.live("is started by its first connection, and answers it and the probes on the sockets that it was given", () =>
    Effect.gen(function* () {
      const host = yield* systemd(file, names)
      assert.notMatch(host.output(), /started/)
      const first = yield* ask(host.portOf("api"), "/")
      const pid = yield* host.started(1)
      const gone = Effect.flatMap(host.processEnded(pid), (how) => Effect.die(`${how}:\n${host.output()}`))
      const answer = yield* Effect.raceFirst(first.answer, gone)
      assert.deepStrictEqual([answer.status, answer.body], [200, from(pid)])
      const live = yield* ask(host.portOf("health"), "/livez")
      assert.strictEqual((yield* live.answer).status, 200)

      // It drains as it does on a socket of its own.
      const slow = yield* ask(host.portOf("api"), "/slow")
      yield* Effect.callback<void>((resume) => void slow.sent.once("finish", () => resume(Effect.void)))
      yield* Effect.sync(() => process.kill(pid, "SIGTERM"))
      const last = yield* slow.answer
      assert.deepStrictEqual([last.status, last.body, last.headers.connection], [200, from(pid), "close"])
      assert.strictEqual(yield* host.processEnded(pid), "0")
    })
  )

  it.live(
    "loses no connection when it is restarted under load, since systemd keeps the socket",
    () =>
      Effect.gen(function* () {
        const host = yield* systemd(file, names)
        const busy = yield* load(host.portOf("api"), clients, ["/", "/", "/", "/slow"])
        const pids: Array<number> = []
        const waited: Array<number> = []
        for (let restart = 0; restart <= restarts; restart++) {
          const pid = yield* host.started(restart + 1)
          pids.push(pid)
          yield* Effect.raceFirst(busy.reached(from(pid), 100), busy.failed)
          assert.deepStrictEqual(busy.failures, [], `after ${restart} restarts and ${busy.asked()} requests`)
          if (restart === restarts) break
          process.kill(pid, "SIGTERM")
          assert.strictEqual(yield* host.processEnded(pid), "0")
          // Nobody but the socket has these.
          waited.push(busy.inFlight())
        }
        yield* busy.stop
        const answered = pids.map((pid) => busy.answered(from(pid)))
        const total = answered.reduce((sum, count) => sum + count)
        const told = `${busy.asked()} requests, ${answered.join(" + ")} of them answered by ${pids.length} processes`
        assert.deepStrictEqual(busy.failures, [], told)
        assert.strictEqual(total, busy.asked(), told)
        assert.isAbove(Math.min(...waited), 0, `waiting in the restarts: ${waited.join(", ")}`)
      }),
    60_000
  )

  it.live("listens on ports of its own where nobody gave it a socket, and refuses whoever comes when it ends", () =>
    Effect.gen(function* () {
      const program = yield* start(file, { env: { PORT: "0", HEALTH_PORT: "0" } })
      const pattern = new RegExp(`${listening.source}[^]*${listening.source}`)
      const ports = (yield* program.printed(pattern)).slice(1).map(Number)
      const health = yield* ask(ports[0]!, "/livez")
      assert.strictEqual((yield* health.answer).status, 200)
      const busy = yield* load(ports[1]!, clients, ["/"])
      yield* busy.reached(from(program.pid), 100)
      yield* program.kill("SIGTERM")
      yield* busy.failed
      assert.strictEqual((yield* program.ended).code, 0)
      // So much for the same load with nobody to keep the socket.
      yield* busy.stop
      assert.include(busy.failures.join("\n"), "ECONNREFUSED")
    })
  )
})
