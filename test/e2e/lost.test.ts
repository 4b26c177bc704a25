import { assert, describe, it } from "@effect/vitest"
import { Console, Effect, Fiber } from "effect"
import { type Load, stop } from "../support/lost.ts"

/** The full form, beside the peers and with what effect-kms has by default, is `npm run bench:lost`. */
const runs = 3

const losesNothing = (load: Load, times = 1) =>
  Effect.gen(function* () {
    for (let run = 0; run < times; run++) {
      const { counted, output, server } = yield* stop(load, Math.random() * 50)
      const seen = JSON.stringify({ ...counted, output }, null, 2)
      assert.strictEqual(counted.lost, 0, seen)
      assert.strictEqual(counted.wrong, 0, seen)
      // Every client was there, was told to leave or had its connection ended between two requests.
      assert.strictEqual(counted.stopped, 0, seen)
      assert.strictEqual(counted.sentAway + counted.endedIdle, load.connections, seen)
      assert.strictEqual(server?.code, 0, seen)
    }
  })

/** A client process, or the machine, may stand still for a while; that is no pause that a client makes. */
const quietPeriod = 10_000

const busy = { connections: 60, think: [0, 0], quietPeriod } as const
const thinking = { connections: 100, think: [0, 100], quietPeriod } as const
const remote = { protocol: "http", connections: 100, think: [500, 2000], delay: 40 } as const

describe("no request on a connection in use is lost at SIGTERM", () => {
  it.live("of 60 clients without pause over HTTP", () => losesNothing({ protocol: "http", ...busy }, runs))
  it.live("of 60 clients without pause over HTTPS", () => losesNothing({ protocol: "https", ...busy }, runs))
  it.live("of 100 clients with up to 100 ms of thought", () => losesNothing({ protocol: "http", ...thinking }, runs))
  it.live("of 100 clients with up to 100 ms of thought over HTTPS", () =>
    losesNothing({ protocol: "https", ...thinking })
  )
  it.live("of 60 clients over HTTP/2, where what is refused may be sent again", () =>
    losesNothing({ protocol: "http2", ...busy })
  )
  it.live("of 60 clients over HTTP/2 in clear text", () => losesNothing({ protocol: "h2c", ...busy }))
})

it.live(
  "a lame duck longer than the clients' pauses loses nothing far away, and what is lost without one is printed",
  () =>
    Effect.gen(function* () {
      // They mostly think, and do not disturb each other.
      const without = yield* Effect.forkChild(stop(remote))
      yield* losesNothing({ ...remote, lameDuck: 3000 }, 1)
      const { counted, server } = yield* Fiber.join(without)
      const { endedIdle, lost, refused, sentAway, stopped, wrong } = counted
      yield* Console.log(`Without a lame duck ${lost} of ${remote.connections} clients lost a request.`)
      // Each has ended in one of these ways, and no other.
      assert.strictEqual(lost + refused + sentAway + endedIdle, remote.connections, JSON.stringify(counted))
      assert.strictEqual(wrong + stopped, 0, JSON.stringify(counted))
      assert.strictEqual(server?.code, 0)
    })
)

it.live("the clients count what is lost: plain node:http loses requests under the same load", () =>
  Effect.gen(function* () {
    const { counted } = yield* stop({ protocol: "http", kind: "node:http", ...busy })
    assert.isAbove(counted.lost, 0, JSON.stringify(counted))
  })
)
