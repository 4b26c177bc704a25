/** An RpcServer that gets SIGTERM, and its clients in another process. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { beside, start } from "../support/program.ts"

const server = beside(import.meta.url, "./fixtures/rpc.ts")
const clients = beside(import.meta.url, "./fixtures/rpc-client.ts")

const workers = 10

describe("an RpcServer at SIGTERM", () => {
  for (const over of ["tcp", "ws"]) {
    it.live(`over ${over} answers what it executes, ends streams, lets idle clients go, and exits with 0`, () =>
      Effect.gen(function* () {
        const program = yield* start(server)
        yield* program.printed(/^started$/m)
        const [, port] = yield* program.printed(new RegExp(`^${over} (\\d+)$`, "m"))
        const peers = yield* start(clients, { args: [over, port!, String(workers)] })
        yield* Effect.all([peers.printed(/^busy$/m), program.printed(/^begun slow$/m)])
        yield* program.kill("SIGTERM")
        const [ended, left] = yield* Effect.all([program.ended, peers.ended])
        const said = peers.output()
        assert.deepStrictEqual([ended.code, left.code], [0, 0], `${program.output()}\n${said}`)
        assert.match(said, /^slow: slow$/m)
        assert.match(said, /^slow: gone$/m)
        assert.match(said, /^idle: gone$/m)
        assert.match(said, /^stream: ended after \d+$/m)
        assert.lengthOf(said.match(/^worker: RpcClientError$/gm) ?? [], workers, said)
        // Whatever was executed has been answered, and nothing is left to be said of it.
        const [, executed] = program.output().match(/^executed (\d+)$/m)!
        const [, answered] = said.match(/^answered (\d+)$/m)!
        assert.strictEqual(answered, executed)
        assert.isAbove(Number(answered), workers)
        assert.match(program.output(), /\b0 cut, 0 abandoned/)
        assert.notMatch(program.output(), /WARN|ERROR|FATAL|[1-9]\d* cut/)
      }).pipe(Effect.scoped)
    )
  }
})
