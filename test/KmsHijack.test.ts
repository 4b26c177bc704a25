/**
 * Sockets that left their server: whoever adopts one is asked to end it when the drain begins, and its peer has
 * `closeTimeout` to answer. What each kind of peer sees is in `peers.test.ts`.
 */
import { assert, describe, it } from "@effect/vitest"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import { Context, Deferred, Effect, Exit, Latch, Layer, type Scope } from "effect"
import { SocketServer } from "effect/socket"
import { Kms, KmsHijack, KmsHttp, KmsTcp } from "effect-kms"
import { createServer, type Server } from "node:http"
import { type AddressInfo, connect, createServer as createTcp, type Socket } from "node:net"
import { Duplex, duplexPair } from "node:stream"
import { type WebSocket, WebSocketServer } from "ws"
import * as Peers from "./support/peers.ts"
import * as Ways from "./support/ways.ts"

type Hijack = KmsHijack.KmsHijack["Service"]

/** A program that does nothing but adopt what it is given. */
const start = (options: KmsHijack.Options = {}, way: Ways.Way = Ways.launchSignal, limits: Ways.Limits = {}) =>
  Effect.gen(function* () {
    const ready = yield* Deferred.make<Hijack>()
    const app = Layer.effectDiscard(
      Effect.flatMap(KmsHijack.KmsHijack, (hijack) => Deferred.succeed(ready, hijack))
    ).pipe(Layer.provide(KmsHijack.layer(options)))
    const program = yield* way.start(app, limits)
    return { program, hijack: yield* Deferred.await(ready) }
  })

const listening = (server: Server | ReturnType<typeof createTcp>) =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as AddressInfo).port)))
    }),
    () => Effect.sync(() => void server.close())
  )

/** A plain `node:http` server with `ws` on it, neither of them ours. */
const webSockets = (onSocket: (socket: WebSocket) => void): Effect.Effect<number, never, Scope.Scope> =>
  Effect.suspend(() => {
    const server = createServer()
    new WebSocketServer({ server }).on("connection", onSocket)
    return listening(server)
  })

/** Both ends of a TCP connection. */
const pair = (options: { readonly allowHalfOpen?: boolean } = {}) =>
  Effect.gen(function* () {
    const accepted = yield* Deferred.make<Socket>()
    const port = yield* listening(createTcp(options, (socket) => Deferred.doneUnsafe(accepted, Exit.succeed(socket))))
    const peer = yield* Peers.connect(port, { raw: true, ...options })
    return { peer, socket: yield* Deferred.await(accepted) }
  })

/** As a callback does that has no effect around it. */
const adopt = (...[hijack, ...rest]: readonly [Hijack, ...Parameters<Hijack["adopt"]>]): void =>
  Effect.runSync(hijack.adopt(...rest) as Effect.Effect<void>)

const closed = (socket: Duplex): Effect.Effect<void> =>
  Effect.callback((resume) =>
    socket.closed ? resume(Effect.void) : void socket.once("close", () => resume(Effect.void))
  )

describe("KmsHijack", () => {
  describe("a WebSocket", () => {
    it.live.each(Ways.ways)("$name: hears the goodbye, and is closed with 1001", (way) =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start({}, way)
        const port = yield* webSockets((socket) =>
          hijack.adoptUnsafe(socket, { goodbye: () => socket.send("so long") })
        )
        const peer = yield* Peers.webSocket(port, "/")
        program.begin()
        assert.strictEqual(yield* peer.message, "so long")
        assert.strictEqual((yield* peer.closed).code, 1001)
        const { report } = yield* program.ended
        if (way.supervised) {
          assert.deepInclude(report!.listeners[0], { kind: "hijacked", drained: 1, cut: 0, forced: false })
        }
      }).pipe(Effect.scoped)
    )

    it.live("is closed with the code of its adopter, where that closes it", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start()
        const port = yield* webSockets((socket) =>
          hijack.adoptUnsafe(socket, { goodbye: () => socket.close(4000, "elsewhere") })
        )
        const peer = yield* Peers.webSocket(port, "/")
        program.begin()
        assert.strictEqual((yield* peer.closed).code, 4000)
        yield* program.ended
      }).pipe(Effect.scoped)
    )

    it.live("that does not answer is destroyed after closeTimeout, and counted as cut", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start({ closeTimeout: 50 })
        const port = yield* webSockets((socket) => hijack.adoptUnsafe(socket))
        const peer = yield* Peers.deafWebSocket(port, "/")
        program.begin()
        yield* peer.end
        const { code, report } = yield* program.ended
        assert.deepInclude(report!.listeners[0], { drained: 0, cut: 1, forced: false })
        assert.match(
          report!.listeners[0]!.cutWork[0]!,
          /^(upgrade GET \S+|CONNECT \S+|socket) from 127\.0\.0\.1:\d+ after [\d.]+m?s$/
        )
        assert.strictEqual(code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("keeps what it is called with private to ws where the socket is, pinned here", () =>
      Effect.gen(function* () {
        const opened = yield* Deferred.make<unknown>()
        const port = yield* webSockets((socket) =>
          Deferred.doneUnsafe(opened, Exit.succeed((socket as unknown as { readonly _socket?: unknown })._socket))
        )
        yield* Peers.webSocket(port, "/")
        assert.instanceOf(yield* Deferred.await(opened), Duplex)
      }).pipe(Effect.scoped)
    )
  })

  describe("any other Duplex", () => {
    it.live("hears the goodbye of an effect, with the services of its adopter, and then the end", () =>
      Effect.gen(function* () {
        class Farewell extends Context.Service<Farewell, string>()("Farewell") {}
        const { hijack, program } = yield* start()
        const { peer, socket } = yield* pair()
        yield* hijack
          .adopt(socket, { goodbye: Effect.flatMap(Farewell, (text) => Effect.sync(() => socket.write(text))) })
          .pipe(Effect.provideService(Farewell, "farewell"))
        program.begin()
        const { ended, error } = yield* peer.closed
        assert.deepStrictEqual([ended, error], [true, undefined])
        assert.strictEqual((yield* peer.raw(8)).toString(), "farewell")
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("is waited for as long as its goodbye takes, and only then has closeTimeout", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start({ closeTimeout: 0 })
        const { peer, socket } = yield* pair()
        const latch = Latch.makeUnsafe()
        const asked = yield* Deferred.make<void>()
        yield* hijack.adopt(socket, {
          goodbye: Effect.gen(function* () {
            yield* Deferred.succeed(asked, undefined)
            yield* latch.await
            yield* Effect.callback<void>((resume) => void socket.write("the rest", () => resume(Effect.void)))
          })
        })
        program.begin()
        yield* Deferred.await(asked)
        peer.send("still read")
        yield* Effect.callback<void>((resume) => void socket.once("data", () => resume(Effect.void)))
        // Long enough for whoever does not wait to have closed it.
        yield* Effect.sleep("30 millis")
        assert.isFalse(program.isEnded() || peer.isClosed)
        latch.openUnsafe()
        assert.strictEqual((yield* peer.raw(8)).toString(), "the rest")
        yield* peer.closed
        yield* program.ended
      }).pipe(Effect.scoped)
    )

    it.live("may have a goodbye that is a promise", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start()
        const { peer, socket } = yield* pair()
        hijack.adoptUnsafe(socket, {
          goodbye: () => new Promise<void>((resolve) => setImmediate(() => socket.write("promised", () => resolve())))
        })
        program.begin()
        assert.strictEqual((yield* peer.raw(8)).toString(), "promised")
        yield* program.ended
      }).pipe(Effect.scoped)
    )

    it.live("is ended although its goodbye fails, which is logged", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start()
        const [one, two, three] = yield* Effect.all([pair(), pair(), pair()])
        yield* hijack.adopt(one.socket, { goodbye: Effect.fail("no") })
        hijack.adoptUnsafe(two.socket, {
          name: "two",
          goodbye: () => {
            throw new Error("no")
          }
        })
        hijack.adoptUnsafe(three.socket, { goodbye: () => Promise.reject(new Error("no")) })
        program.begin()
        yield* Effect.all([one.peer.closed, two.peer.closed, three.peer.closed])
        const { code, log } = yield* program.ended
        assert.deepStrictEqual(
          log.filter((line) => /goodbye/.test(line)).map((line) => line.replace(/,.*/s, "")),
          // That of the effect is in the log of its adopter.
          ["The goodbye of two failed", "The goodbye of a hijacked socket failed"]
        )
        assert.strictEqual(code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("whose goodbye does not end is cut at the deadline", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start({}, Ways.launchSignal, { timeout: 100, forceTimeout: 400 })
        const { peer, socket } = yield* pair()
        yield* hijack.adopt(socket, { goodbye: Effect.never })
        program.begin()
        const { code, report } = yield* program.ended
        assert.strictEqual(code, 1)
        assert.deepInclude(report!.listeners[0], { cut: 1, forced: true })
        yield* peer.closed
      }).pipe(Effect.scoped)
    )

    it.live("whose peer does not close its half is destroyed after closeTimeout", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start({ closeTimeout: 50 })
        const { socket } = yield* pair({ allowHalfOpen: true })
        yield* hijack.adopt(socket)
        program.begin()
        yield* closed(socket)
        yield* program.ended
      }).pipe(Effect.scoped)
    )

    it.live("need not be a socket at all", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start()
        const [near, far] = duplexPair()
        far.resume()
        far.on("end", () => far.end())
        yield* hijack.adopt(near, { goodbye: Effect.sync(() => near.write("x")) })
        program.begin()
        yield* closed(near)
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("does not end the process when its peer resets it", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start()
        const { peer, socket } = yield* pair()
        yield* hijack.adopt(socket)
        peer.socket.resetAndDestroy()
        yield* closed(socket)
        program.begin()
        assert.deepInclude((yield* program.ended).report!.listeners[0], { drained: 0, cut: 0 })
      }).pipe(Effect.scoped)
    )
  })

  describe("whatever becomes of one socket, the others", () => {
    /** A WebSocket of somebody else's that throws when it is told to. */
    const broken = (member: "close" | "terminate"): KmsHijack.WebSocketLike => ({
      readyState: 1,
      on: () => {},
      close: () => {
        if (member === "close") throw new Error("broken")
      },
      terminate: () => {
        throw new Error("broken")
      }
    })

    it.live.each(["close", "terminate"] as const)("are ended where its %s throws", (member) =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start({ closeTimeout: 1000 }, Ways.launchSignal, {
          timeout: 3000,
          forceTimeout: 400
        })
        const { peer, socket } = yield* pair()
        const deaf = yield* pair({ allowHalfOpen: true })
        hijack.adoptUnsafe(broken(member))
        hijack.adoptUnsafe(socket, { goodbye: () => socket.write("bye") })
        hijack.adoptUnsafe(deaf.socket)
        program.begin()
        assert.strictEqual((yield* peer.raw(3)).toString(), "bye")
        yield* peer.closed
        yield* closed(deaf.socket)
        // Nobody ever says that it has closed.
        const { report } = yield* program.ended
        assert.deepInclude(report!.listeners[0], { drained: 1, forced: true, abandoned: 0 })
        assert.match(report!.hung.join(), /^hijacked: socket from a local socket for [\d.]+m?s$/)
      }).pipe(Effect.scoped)
    )
  })

  it.live("a goodbye that takes too long is interrupted at the deadline", () =>
    Effect.gen(function* () {
      const { hijack, program } = yield* start({}, Ways.launchSignal, { timeout: 100, forceTimeout: 400 })
      const { socket } = yield* pair()
      const interrupted = yield* Deferred.make<void>()
      yield* hijack.adopt(socket, {
        goodbye: Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
      })
      program.begin()
      yield* Deferred.await(interrupted)
      assert.deepInclude((yield* program.ended).report!.listeners[0], { cut: 1, abandoned: 0 })
    }).pipe(Effect.scoped)
  )

  it.live("a socket that is adopted twice has both goodbyes, and counts once", () =>
    Effect.gen(function* () {
      const { hijack, program } = yield* start()
      const { peer, socket } = yield* pair()
      hijack.adoptUnsafe(socket, { goodbye: () => socket.write("one") })
      const latch = Latch.makeUnsafe()
      yield* hijack.adopt(socket, {
        goodbye: Effect.andThen(
          latch.await,
          Effect.sync(() => socket.write("two"))
        )
      })
      program.begin()
      yield* peer.raw(3)
      latch.openUnsafe()
      assert.strictEqual((yield* peer.raw(6)).toString(), "onetwo")
      yield* peer.closed
      assert.deepInclude((yield* program.ended).report!.listeners[0], { drained: 1, cut: 0 })
    }).pipe(Effect.scoped)
  )

  it.live("an error that is already on its way as a socket is adopted is nobody's trouble", () =>
    Effect.gen(function* () {
      const { hijack, program } = yield* start()
      const { socket } = yield* pair()
      socket.destroy(new Error("reset"))
      hijack.adoptUnsafe(socket)
      yield* closed(socket)
      program.begin()
      assert.strictEqual((yield* program.ended).code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("a socket of KmsTcp that its handler has passed on has its goodbye, and counts there", () =>
    Effect.gen(function* () {
      const ready = yield* Deferred.make<SocketServer.SocketServer["Service"]>()
      const adopted = yield* Deferred.make<void>()
      const latch = Latch.makeUnsafe()
      const app = Layer.effectDiscard(
        Effect.gen(function* () {
          const hijack = yield* KmsHijack.KmsHijack
          const server = yield* SocketServer.SocketServer
          const handler = Effect.gen(function* () {
            const socket = yield* NodeSocket.NetSocket
            yield* hijack.adopt(socket, {
              goodbye: Effect.andThen(
                latch.await,
                Effect.sync(() => socket.write("goodbye"))
              )
            })
            yield* Deferred.succeed(adopted, undefined)
          })
          yield* Effect.forkScoped(server.run(() => handler) as Effect.Effect<never>)
          yield* Deferred.succeed(ready, server)
        })
      ).pipe(
        Layer.provide(KmsTcp.layer({ port: 0, host: "127.0.0.1", closeTimeout: 0 })),
        Layer.provide(KmsHijack.layer())
      )
      const program = yield* Ways.launchSignal.start(app)
      const { address } = yield* Deferred.await(ready)
      assert(address._tag === "InetAddressV4")
      const peer = yield* Peers.connect(address.port, { raw: true })
      yield* Deferred.await(adopted)
      program.begin()
      yield* Effect.sleep("50 millis")
      assert.isFalse(peer.isClosed)
      latch.openUnsafe()
      assert.strictEqual((yield* peer.raw(7)).toString(), "goodbye")
      yield* peer.closed
      const { code, report } = yield* program.ended
      assert.strictEqual(code, 0)
      // It is the listener's, which counts handlers.
      for (const { cut, drained } of report!.listeners) assert.deepStrictEqual({ cut, drained }, { cut: 0, drained: 0 })
    }).pipe(Effect.scoped)
  )

  describe("adopted late", () => {
    it.live("once the drain has begun its goodbye is said at once, and it is waited for", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start()
        const first = yield* pair()
        const latch = Latch.makeUnsafe()
        const draining = yield* Deferred.make<void>()
        yield* hijack.adopt(first.socket, {
          goodbye: Effect.andThen(Deferred.succeed(draining, undefined), latch.await)
        })
        const late = yield* pair()
        program.begin()
        yield* Deferred.await(draining)
        // Not in the very step in which the drain asks all that are there.
        yield* Effect.yieldNow
        yield* hijack.adopt(late.socket, { goodbye: Effect.sync(() => late.socket.write("late")) })
        assert.strictEqual((yield* late.peer.raw(4)).toString(), "late")
        yield* late.peer.closed
        latch.openUnsafe()
        assert.deepInclude((yield* program.ended).report!.listeners[0], { drained: 2, cut: 0 })
      }).pipe(Effect.scoped)
    )

    it.live("after it has closed, it counts for nothing", () =>
      Effect.gen(function* () {
        const { hijack, program } = yield* start()
        const { socket } = yield* pair()
        socket.destroy()
        yield* hijack.adopt(socket, { goodbye: Effect.never })
        program.begin()
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )
  })

  it.live("closes only what is left: a socket that has closed by itself is forgotten", () =>
    Effect.gen(function* () {
      const { hijack, program } = yield* start({ name: "sockets" })
      const { peer, socket } = yield* pair()
      const said = yield* Deferred.make<void>()
      yield* hijack.adopt(socket, { goodbye: Deferred.succeed(said, undefined) })
      peer.socket.end()
      socket.resume()
      yield* closed(socket)
      program.begin()
      yield* program.ended
      assert.isFalse(Deferred.isDoneUnsafe(said))
    }).pipe(Effect.scoped)
  )

  it.live("tells of what it has adopted in the status", () =>
    Effect.gen(function* () {
      const status = yield* Deferred.make<Kms.Status>()
      const { socket } = yield* pair()
      const app = Layer.effectDiscard(
        Effect.gen(function* () {
          const hijack = yield* KmsHijack.KmsHijack
          yield* hijack.adopt(socket, { name: "tunnel" })
          yield* Deferred.succeed(status, yield* Kms.status)
        })
      ).pipe(Layer.provide(KmsHijack.layer({ name: "tunnels" })))
      const program = yield* Ways.launchSignal.start(app)
      const [listener] = (yield* Deferred.await(status)).listeners
      assert.deepInclude(listener, { name: "tunnels", kind: "hijacked", phase: "open", connections: 1, inFlight: 1 })
      const [oldest] = listener!.oldest
      assert.strictEqual(oldest!.what, "tunnel")
      assert.match(oldest!.peer, /^127\.0\.0\.1:\d+$/)
      program.begin()
      yield* program.ended
    }).pipe(Effect.scoped)
  )

  it.live("says which option cannot be meant", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.scoped(KmsHijack.make({ closeTimeout: "infinity" as "1 second" })))
      assert.strictEqual(error.message, 'Option closeTimeout is "infinity": it has to be finite')
    })
  )

  describe("on a KmsHttp.layerNode listener", () => {
    /** A listener whose upgrades are adopted, in whatever way `adopt` does. */
    const listener = (
      evaluate: (hijack: Hijack) => Server,
      options: Partial<KmsHttp.NodeOptions> = {},
      way: Ways.Way = Ways.launchSignal
    ) =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const app = Layer.unwrap(
          Effect.map(KmsHijack.KmsHijack, (hijack) =>
            KmsHttp.layerNode(
              () => {
                const server = evaluate(hijack)
                return server.on("listening", () => Deferred.doneUnsafe(ready, Exit.succeed(server)))
              },
              { port: 0, host: "127.0.0.1", ...options }
            )
          )
        ).pipe(Layer.provide(KmsHijack.layer()))
        const program = yield* way.start(app)
        return { program, port: ((yield* Deferred.await(ready)).address() as AddressInfo).port }
      })

    it.live.each(Ways.ways)("$name: a WebSocket of ws has its goodbye, however long, and counts once", (way) =>
      Effect.gen(function* () {
        const latch = Latch.makeUnsafe()
        const asked = yield* Deferred.make<void>()
        const { port, program } = yield* listener(
          (hijack) => {
            const server = createServer()
            new WebSocketServer({ server }).on("connection", (socket) =>
              adopt(hijack, socket, {
                goodbye: Effect.gen(function* () {
                  yield* Deferred.succeed(asked, undefined)
                  yield* latch.await
                  yield* Effect.sync(() => socket.send("last words"))
                })
              })
            )
            return server
          },
          { closeTimeout: 0 },
          way
        )
        const peer = yield* Peers.webSocket(port, "/")
        program.begin()
        yield* Deferred.await(asked)
        yield* Effect.sleep("20 millis")
        assert.isFalse(peer.isClosed())
        latch.openUnsafe()
        assert.strictEqual(yield* peer.message, "last words")
        const { report } = yield* program.ended
        if (report !== undefined) {
          const counts = report.listeners.map(({ cut, drained, kind }) => ({ kind, sum: cut + drained }))
          assert.deepStrictEqual(counts, [
            { kind: "hijacked", sum: 0 },
            { kind: "http", sum: 1 }
          ])
        }
      }).pipe(Effect.scoped)
    )

    it.live("a CONNECT tunnel finishes its transfer, at both of its ends", () =>
      Effect.gen(function* () {
        const release: Array<() => void> = []
        const asked = yield* Deferred.make<void>()
        const upstream = yield* listening(
          createTcp((socket) => {
            socket.write("first half, ")
            release.push(() => socket.end("second half"))
          })
        )
        const { port, program } = yield* listener((hijack) => {
          const server = createServer()
          server.on("connect", (_request, client, head) => {
            const target = connect(upstream, "127.0.0.1", () => {
              client.write("HTTP/1.1 200 OK\r\nx-tunnel: yes\r\n\r\n")
              target.write(head)
              target.pipe(client)
              client.pipe(target)
              const done = Effect.andThen(Deferred.succeed(asked, undefined), closed(target))
              adopt(hijack, client, { name: "client", goodbye: done })
              adopt(hijack, target, { name: "target", goodbye: done })
            })
          })
          return server
        })
        const peer = yield* Peers.tunnel(port)
        yield* peer.raw(12)
        program.begin()
        yield* Deferred.await(asked)
        for (const end of release) end()
        assert.strictEqual((yield* peer.raw(23)).toString(), "first half, second half")
        const { ended, error } = yield* peer.closed
        assert.deepStrictEqual([ended, error], [true, undefined])
        const { code, report } = yield* program.ended
        assert.strictEqual(code, 0)
        for (const { cut } of report!.listeners) assert.strictEqual(cut, 0)
      }).pipe(Effect.scoped)
    )
  })
})
