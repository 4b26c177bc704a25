/**
 * A socket server that runs on `NodeSocketServer` runs unchanged on `KmsTcp`: the same tests, against both, over TCP and
 * TLS. What follows is what only `KmsTcp` promises, and what it says when it cannot start. What each kind of peer sees is
 * in `peers.test.ts`.
 */
import { assert, describe, it } from "@effect/vitest"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import {
  Cause,
  Config,
  ConfigProvider,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Latch,
  Layer,
  Logger,
  Queue,
  Redacted,
  References,
  Scope
} from "effect"
import { type Socket, SocketServer } from "effect/socket"
import { TestClock } from "effect/testing"
import { Kms, KmsTcp } from "effect-kms"
import type { EventEmitter } from "node:events"
import { readFileSync } from "node:fs"
import type { Server as NodeServer } from "node:net"
import { connect as connectTls } from "node:tls"
import { cert, key } from "./support/certificate.ts"
import * as Peers from "./support/peers.ts"
import * as Ways from "./support/ways.ts"

type Server = SocketServer.SocketServer["Service"]
type Make = Effect.Effect<Server, SocketServer.SocketServerError, Scope.Scope>

const tls = { key, cert }
const local = { port: 0, host: "127.0.0.1" }

const portOf = ({ address }: Server): number => {
  assert(address._tag === "InetAddressV4" || address._tag === "InetAddressV6", address._tag)
  return address.port
}

/** Runs `handler` until the scope closes. */
const serve = <R>(server: Server, handler: (socket: Socket.Socket) => Effect.Effect<unknown, unknown, R>) =>
  Effect.forkScoped(server.run(handler) as Effect.Effect<never, never, Exclude<R, NodeSocket.NetSocket>>, {
    startImmediately: true
  })

/** Reads once, and gives it as text. */
const read = (socket: Socket.Socket) =>
  Effect.flatMap(socket.reader, ({ pull }) => Effect.map(pull, (chunks) => Buffer.concat(chunks.map(bytes)).toString()))

const bytes = (chunk: Uint8Array | string) => (typeof chunk === "string" ? Buffer.from(chunk) : chunk)

const echoing = (socket: Socket.Socket) =>
  Effect.gen(function* () {
    const { pull } = yield* socket.reader
    const { writeAll } = yield* socket.writer
    return yield* Effect.forever(Effect.flatMap(pull, writeAll))
  }).pipe(Effect.scoped)

const echo = (socket: Socket.Socket) => Effect.ignore(echoing(socket))

const text = (peer: Peers.Peer, length: number) => Effect.map(peer.raw(length), (buffer) => buffer.toString())

const messageOf = (make: Make) =>
  Effect.map(Effect.flip(Effect.scoped(make)), (error) => {
    assert.instanceOf(error, SocketServer.SocketServerError)
    assert.strictEqual(error.reason._tag, "SocketServerOpenError")
    return error.message
  })

const listeners: ReadonlyArray<{ readonly name: string; readonly make: Make; readonly tls: boolean }> = [
  { name: "NodeSocketServer.make", make: NodeSocketServer.make(local), tls: false },
  { name: "KmsTcp.make", make: KmsTcp.make(local), tls: false },
  { name: "NodeSocketServer.makeTls", make: NodeSocketServer.makeTls({ ...local, ...tls }), tls: true },
  { name: "KmsTcp.makeTls", make: KmsTcp.makeTls({ ...local, ...tls }), tls: true }
]

describe.each(listeners)("a socket server on $name", ({ make, tls }) => {
  const connect = (server: Server) => Peers.connect(portOf(server), { raw: true, tls })

  it.live("gives each connection to the handler, and says where it listens", () =>
    Effect.gen(function* () {
      const server = yield* make
      assert.strictEqual(server.address._tag, "InetAddressV4")
      yield* serve(server, echo)
      const peers = yield* Effect.all([connect(server), connect(server)])
      peers.forEach((peer, index) => peer.send(`hello ${index}`))
      assert.strictEqual(yield* text(peers[0], 7), "hello 0")
      assert.strictEqual(yield* text(peers[1], 7), "hello 1")
      for (const { closed, socket } of peers)
        yield* Effect.andThen(
          Effect.sync(() => socket.end()),
          closed
        )
    }).pipe(Effect.scoped)
  )

  it.live("closes a connection when its handler has ended, with all that was written", () =>
    Effect.gen(function* () {
      const server = yield* make
      yield* serve(server, (socket) =>
        Effect.gen(function* () {
          yield* socket.reader
          const { write } = yield* socket.writer
          yield* write("x".repeat(1_000_000))
        }).pipe(Effect.scoped)
      )
      const peer = yield* connect(server)
      const { ended, error } = yield* peer.closed
      assert.deepStrictEqual([ended, error], [true, undefined])
      assert.lengthOf(yield* peer.raw(1_000_000), 1_000_000)
    }).pipe(Effect.scoped)
  )

  it.live("tells the handler of its peer's end as a SocketCloseError", () =>
    Effect.gen(function* () {
      const server = yield* make
      const heard = yield* Deferred.make<unknown>()
      yield* serve(server, (socket) =>
        echoing(socket).pipe(Effect.tapError((error) => Deferred.succeed(heard, error.reason._tag)))
      )
      const peer = yield* connect(server)
      peer.send("hi")
      yield* peer.raw(2)
      peer.socket.end()
      assert.strictEqual(yield* Deferred.await(heard), "SocketCloseError")
    }).pipe(Effect.scoped)
  )

  it.live("keeps what came before anyone ran, and gives it to the first who does", () =>
    Effect.gen(function* () {
      const server = yield* make
      const peer = yield* connect(server)
      peer.send("early")
      yield* Effect.callback<void>((resume) => void peer.socket.write("", () => resume(Effect.void)))
      yield* serve(server, echo)
      assert.strictEqual(yield* text(peer, 5), "early")
      peer.socket.end()
      yield* peer.closed
    }).pipe(Effect.scoped)
  )

  it.live("gives new connections to whoever ran last", () =>
    Effect.gen(function* () {
      const server = yield* make
      const say = (name: string) => (socket: Socket.Socket) =>
        Effect.scoped(
          Effect.andThen(
            socket.reader,
            Effect.flatMap(socket.writer, ({ write }) => write(name))
          )
        )
      yield* serve(server, say("first"))
      assert.strictEqual(yield* text(yield* connect(server), 5), "first")
      const second = yield* serve(server, say("second"))
      assert.strictEqual(yield* text(yield* connect(server), 6), "second")
      yield* Fiber.interrupt(second)
      assert.strictEqual(yield* text(yield* connect(server), 5), "first")
    }).pipe(Effect.scoped)
  )

  it.live("provides the socket of Node, and the services of whoever runs it", () =>
    Effect.gen(function* () {
      class Name extends Context.Service<Name, string>()("Name") {}
      const server = yield* make
      const seen = yield* Deferred.make<readonly [string, string | undefined]>()
      yield* serve(server, () =>
        Effect.gen(function* () {
          const socket = yield* NodeSocket.NetSocket
          yield* Deferred.succeed(seen, [yield* Name, socket.remoteAddress])
        })
      ).pipe(Effect.provideService(Name, "given"))
      yield* connect(server)
      assert.deepStrictEqual(yield* Deferred.await(seen), ["given", "127.0.0.1"])
    }).pipe(Effect.scoped)
  )

  it.live("leaves a socket that its handler passed on to whoever reads it then", () =>
    Effect.gen(function* () {
      const server = yield* make
      const sockets = yield* Queue.unbounded<Socket.Socket>()
      yield* serve(server, (socket) => Queue.offer(sockets, socket))
      yield* Effect.forkScoped(Effect.flatMap(Queue.take(sockets), echo))
      const peer = yield* connect(server)
      peer.send("passed on")
      assert.strictEqual(yield* text(peer, 9), "passed on")
    }).pipe(Effect.scoped)
  )

  it.live("tells of a handler that fails, at the level for what nobody handles, and goes on", () =>
    Effect.gen(function* () {
      const server = yield* make
      const log: Array<string> = []
      const logged = yield* Deferred.make<void>()
      const logger = Logger.make(({ message }) => {
        log.push(String(message))
        Deferred.doneUnsafe(logged, Exit.void)
      })
      yield* serve(server, (socket) => Effect.andThen(Effect.scoped(read(socket)), Effect.fail("no"))).pipe(
        Effect.provideService(Logger.CurrentLoggers, new Set([logger])),
        Effect.provideService(References.UnhandledLogLevel, "Error")
      )
      const peer = yield* connect(server)
      peer.send("x")
      yield* Deferred.await(logged)
      assert.match(log[0]!, /Unhandled error in SocketServer/)
      yield* peer.closed
      yield* connect(server)
    }).pipe(Effect.scoped)
  )

  it.live("survives a peer that resets its connection, and a handler that writes to it", () =>
    Effect.gen(function* () {
      const server = yield* make
      const heard = yield* Deferred.make<unknown>()
      yield* serve(server, (socket) =>
        echoing(socket).pipe(Effect.tapError((error) => Deferred.succeed(heard, error.reason._tag)))
      )
      const peer = yield* connect(server)
      peer.send("x")
      yield* peer.raw(1)
      // A TLS socket has no reset of its own.
      if (tls) peer.socket.destroy()
      else peer.socket.resetAndDestroy()
      assert.include(["SocketReadError", "SocketCloseError"], yield* Deferred.await(heard))
      const next = yield* connect(server)
      next.send("still there")
      assert.strictEqual(yield* text(next, 11), "still there")
    }).pipe(Effect.scoped)
  )

  it.live("fails with SocketServerError if the address is taken", () =>
    Effect.gen(function* () {
      const server = yield* make
      const port = portOf(server)
      const again = tls
        ? NodeSocketServer.makeTls({ ...local, port, key, cert })
        : NodeSocketServer.make({ ...local, port })
      assert.strictEqual((yield* Effect.flip(Effect.scoped(again))).reason._tag, "SocketServerOpenError")
    }).pipe(Effect.scoped)
  )
})

describe.each(listeners.filter(({ tls }) => !tls))("a socket server on $name", ({ make }) => {
  it.live("lets a handler turn its connection to TLS, and closes that with all that was written", () =>
    Effect.gen(function* () {
      const server = yield* make
      yield* serve(server, (socket) =>
        Effect.gen(function* () {
          const { pull, upgrade } = yield* socket.reader
          const { write } = yield* socket.writer
          yield* pull
          yield* write("go ahead")
          yield* upgrade({ key: Redacted.make(key), cert })
          yield* pull
          yield* write("x".repeat(300_000))
        }).pipe(Effect.scoped)
      )
      const peer = yield* Peers.connect(portOf(server), { raw: true })
      peer.send("STARTTLS")
      yield* peer.raw(8)
      peer.socket.removeAllListeners("data")
      const secure = yield* Effect.acquireRelease(
        Effect.sync(() => connectTls({ socket: peer.socket, ca: cert, servername: "localhost" })),
        (socket) => Effect.sync(() => socket.destroy())
      )
      secure.write("secretly")
      const bytes = yield* Effect.callback<number, Error>((resume) => {
        let bytes = 0
        secure.on("data", (chunk: Buffer) => (bytes += chunk.length))
        secure.on("end", () => resume(Effect.succeed(bytes)))
        secure.on("error", (error) => resume(Effect.fail(error)))
      })
      assert.strictEqual(bytes, 300_000)
    }).pipe(Effect.scoped)
  )
})

describe("KmsTcp", () => {
  const connect = (server: Server) => Peers.connect(portOf(server), { raw: true })

  describe("at the start", () => {
    it.live("names the address that is taken, and leaves nothing open", () =>
      Effect.gen(function* () {
        const port = portOf(yield* KmsTcp.make(local))
        assert.strictEqual(
          yield* messageOf(KmsTcp.make({ ...local, port })),
          `Cannot listen on 127.0.0.1:${port}: the address is in use`
        )
        assert.strictEqual(
          yield* messageOf(KmsTcp.makeTls({ ...local, ...tls, port })),
          `Cannot listen on 127.0.0.1:${port}: the address is in use`
        )
      }).pipe(Effect.scoped)
    )

    it.live("names the option that cannot be meant, and its value", () =>
      Effect.gen(function* () {
        const messages: Array<readonly [KmsTcp.Options, string]> = [
          [{ port: -1 }, "Cannot listen on 127.0.0.1:-1: "],
          [{ drainTimeout: 0 }, "Option drainTimeout is 0: it has to be longer than zero"],
          [{ drainOn: "never" as "release" }, 'Option drainOn is "never": neither "shutdown" nor "release"'],
          [{ onDrain: "kill" as "wait" }, 'Option onDrain is "kill": neither "wait" nor "interrupt"'],
          [{ closeTimeout: "infinity" as "1 second" }, 'Option closeTimeout is "infinity": it has to be finite'],
          [{ quietPeriod: -1 }, "Option quietPeriod is -1: a duration cannot be negative"]
        ]
        for (const [options, message] of messages) {
          assert.isTrue((yield* messageOf(KmsTcp.make({ ...local, ...options }))).startsWith(message), message)
        }
      })
    )

    it.live("names a certificate that is none", () =>
      Effect.gen(function* () {
        const message = yield* messageOf(KmsTcp.makeTls({ ...local, key: "no key", cert }))
        assert.match(message, /^Cannot make the tls server: /)
      })
    )

    it.live("layerConfig reads its options from a ConfigProvider", () =>
      Effect.gen(function* () {
        const server = yield* Effect.map(
          Layer.build(
            KmsTcp.layerConfig({
              port: Config.Int("PORT"),
              host: Config.String("HOST"),
              name: Config.succeed("config")
            })
          ),
          (context) => Context.get(context, SocketServer.SocketServer)
        )
        yield* serve(server, echo)
        const peer = yield* connect(server)
        peer.send("configured")
        assert.strictEqual(yield* text(peer, 10), "configured")
      }).pipe(
        Effect.scoped,
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ PORT: "0", HOST: "127.0.0.1" })))
      )
    )

    it.live("does not bind once the drain has begun", () =>
      Effect.gen(function* () {
        const bound = yield* Deferred.make<Server>()
        const late = Layer.effectDiscard(
          Effect.gen(function* () {
            yield* Effect.forkScoped(
              Kms.initiated.pipe(
                Effect.andThen(KmsTcp.make(local)),
                Effect.flatMap((server) => Deferred.succeed(bound, server))
              )
            )
            yield* Effect.forkScoped(Kms.busy("work")(Effect.andThen(Kms.initiated, Effect.sleep("50 millis"))))
          })
        )
        const program = yield* Ways.launchSignal.start(late)
        program.begin()
        yield* program.ended
        assert.isFalse(Deferred.isDoneUnsafe(bound))
      }).pipe(Effect.scoped)
    )
  })

  // Elsewhere nothing tells of the option.
  describe.runIf(process.platform === "linux")("TCP keep-alive", () => {
    /** The timers of the sockets on a port: `02:...` is that of keep-alive, with its jiffies (proc(5)). */
    const timers = (port: number) =>
      readFileSync("/proc/net/tcp", "utf8")
        .split("\n")
        .map((line) => line.trim().split(/\s+/))
        .filter(([, address, , state]) => state === "01" && address?.endsWith(`:${hex(port)}`))
        .map((fields) => fields[5]!)
    const hex = (port: number) => port.toString(16).toUpperCase().padStart(4, "0")
    const seconds = (timer: string) => Number.parseInt(timer.split(":")[1]!, 16) / 100

    const timersOf = (options: Partial<KmsTcp.Options>) =>
      Effect.gen(function* () {
        const server = yield* KmsTcp.make({ ...local, ...options })
        yield* serve(server, echo)
        const peer = yield* connect(server)
        peer.send("x")
        yield* peer.raw(1)
        return timers(portOf(server))
      }).pipe(Effect.scoped)

    it.live("is on, after three minutes, unless it is asked for otherwise", () =>
      Effect.gen(function* () {
        const [timer] = yield* timersOf({})
        assert.match(timer!, /^02:/)
        assert.approximately(seconds(timer!), 180, 10)
        assert.approximately(seconds((yield* timersOf({ keepAliveInitialDelay: 60_000 }))[0]!), 60, 10)
        assert.match((yield* timersOf({ keepAlive: false }))[0]!, /^00:/)
      })
    )
  })

  describe("onDrain", () => {
    /** A program with one connection whose handler does `work` once it has read something. */
    const stage = <E>(
      options: Partial<KmsTcp.Options>,
      work: (socket: Socket.Socket) => Effect.Effect<unknown, E, Scope.Scope>,
      way: Ways.Way = Ways.launchSignal,
      limits: Ways.Limits = {}
    ) =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const entered = yield* Deferred.make<void>()
        const app = Layer.effectDiscard(
          Effect.gen(function* () {
            const server = yield* SocketServer.SocketServer
            yield* serve(server, (socket) =>
              Effect.scoped(
                Effect.gen(function* () {
                  yield* read(socket)
                  yield* Deferred.succeed(entered, undefined)
                  yield* work(socket)
                })
              )
            )
            yield* Deferred.succeed(ready, server)
          })
        ).pipe(Layer.provide(KmsTcp.layer({ ...local, ...options })))
        const program = yield* way.start(app, limits)
        const peer = yield* connect(yield* Deferred.await(ready))
        peer.send("go")
        yield* Deferred.await(entered)
        return { program, peer, port: portOf(yield* Deferred.await(ready)) }
      })

    const say = (socket: Socket.Socket, text: string) => Effect.flatMap(socket.writer, ({ write }) => write(text))

    it.live('"wait" tells a handler of the drain through Kms.initiated, and lets it say goodbye', () =>
      Effect.gen(function* () {
        const { peer, program } = yield* stage({}, (socket) => Effect.andThen(Kms.initiated, say(socket, "goodbye")))
        program.begin()
        assert.strictEqual(yield* text(peer, 7), "goodbye")
        const { ended, error } = yield* peer.closed
        assert.deepStrictEqual([ended, error], [true, undefined])
        const { code, report } = yield* program.ended
        assert.strictEqual(code, 0)
        assert.deepInclude(report!.listeners[0], { kind: "tcp", drained: 1, cut: 0, abandoned: 0, forced: false })
      }).pipe(Effect.scoped)
    )

    for (const way of Ways.ways) {
      it.live(`${way.name}: "wait" tells a handler through Kms.draining`, () =>
        Effect.gen(function* () {
          const { peer, program } = yield* stage({}, (socket) => Effect.andThen(Kms.draining, say(socket, "bye")), way)
          program.begin()
          assert.strictEqual(yield* text(peer, 3), "bye")
          const { ended, error } = yield* peer.closed
          assert.deepStrictEqual([ended, error], [true, undefined])
          yield* program.ended
        }).pipe(Effect.scoped)
      )
    }

    it.live("tells it too where only one of several runs ends, and where the drain has begun already", () =>
      Effect.gen(function* () {
        const server = yield* KmsTcp.make(local)
        yield* serve(server, echo)
        const run = yield* serve(server, (socket) =>
          Effect.scoped(
            Effect.gen(function* () {
              yield* read(socket)
              yield* Kms.draining
              yield* say(socket, "once, ")
              yield* Kms.draining
              yield* say(socket, "twice")
            })
          )
        )
        const peer = yield* connect(server)
        peer.send("go")
        yield* Effect.sleep("20 millis")
        const closing = yield* Effect.forkScoped(Fiber.interrupt(run), { startImmediately: true })
        assert.strictEqual(yield* text(peer, 11), "once, twice")
        yield* Fiber.await(closing)
        assert.isFalse(yield* Peers.isRefused(portOf(server)))
      }).pipe(Effect.scoped)
    )

    for (const way of [Ways.launchSignal, Ways.scopeCloses, Ways.rootInterrupted]) {
      it.live(`${way.name}: "interrupt" interrupts a handler once no busy section is live in it`, () =>
        Effect.gen(function* () {
          const latch = Latch.makeUnsafe()
          const { peer, port, program } = yield* stage(
            { onDrain: "interrupt" },
            (socket) =>
              Effect.andThen(
                Kms.busy("answer")(Effect.andThen(latch.await, say(socket, "whole"))),
                Effect.andThen(Effect.sleep(1), Effect.andThen(say(socket, "more"), Effect.never))
              ),
            way
          )
          program.begin()
          while (!(yield* Peers.isRefused(port))) yield* Effect.yieldNow
          latch.openUnsafe()
          const { ended, error } = yield* peer.closed
          assert.deepStrictEqual([ended, error], [true, undefined])
          assert.strictEqual(yield* text(peer, 5), "whole")
          yield* program.ended
        }).pipe(Effect.scoped)
      )
    }

    it.live("what a handler wrote before it was interrupted arrives", () =>
      Effect.gen(function* () {
        const { peer, program } = yield* stage({ onDrain: "interrupt" }, (socket) =>
          Effect.andThen(say(socket, "x".repeat(100_000)), Effect.never)
        )
        program.begin()
        yield* peer.closed
        assert.lengthOf(yield* peer.raw(100_000), 100_000)
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("a handler that fails after it has answered has its answer delivered", () =>
      Effect.gen(function* () {
        const { peer, program } = yield* stage({}, (socket) =>
          Effect.andThen(Kms.initiated, Effect.andThen(say(socket, "x".repeat(1_000_000)), Effect.fail("no")))
        )
        program.begin()
        const { ended, error } = yield* peer.closed
        assert.deepStrictEqual([ended, error], [true, undefined])
        assert.lengthOf(yield* peer.raw(1_000_000), 1_000_000)
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("a handler that does not end is cut at the deadline, and named", () =>
      Effect.gen(function* () {
        const { peer, program } = yield* stage({}, () => Effect.never, Ways.launchSignal, {
          timeout: 100,
          forceTimeout: 400
        })
        program.begin()
        const { code, report } = yield* program.ended
        assert.strictEqual(code, 1)
        const [listener] = report!.listeners
        assert.deepInclude(listener, { drained: 0, cut: 1, abandoned: 0, forced: true })
        assert.match(listener!.cutWork[0]!, /^connection from 127\.0\.0\.1:\d+ after [\d.]+m?s$/)
        yield* peer.closed
      }).pipe(Effect.scoped)
    )

    it.live("one that cannot be interrupted either is abandoned, and reported so", () =>
      Effect.gen(function* () {
        const { program } = yield* stage(
          { drainTimeout: 100 },
          () => Effect.uninterruptible(Effect.never),
          Ways.launchSignal,
          {
            forceTimeout: 400
          }
        )
        program.begin()
        const { code, report } = yield* program.ended
        assert.strictEqual(code, 1)
        assert.deepInclude(report!.listeners[0], { cut: 1, abandoned: 1, forced: true })
      }).pipe(Effect.scoped)
    )

    it.live("without a shutdown drainTimeout bounds the drain, and the log says what was cut", () =>
      Effect.gen(function* () {
        const { program } = yield* stage({ drainTimeout: 100, name: "mine" }, () => Effect.never, Ways.scopeCloses)
        program.begin()
        const { log } = yield* program.ended
        assert.isTrue(
          log.some((line) =>
            /^mine was cut after [\d.]+m?s\. 1 cut: connection from 127\.0\.0\.1:\d+ after [\d.]+m?s$/.test(line)
          ),
          log.join("\n")
        )
      }).pipe(Effect.scoped)
    )
  })

  describe("the drain", () => {
    it.effect("its limits are those of the Clock", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const server = yield* Scope.provide(KmsTcp.make({ ...local, drainTimeout: "1 hour" }), scope)
        const entered = yield* Deferred.make<void>()
        const run = yield* Effect.forkDetach(
          server.run(() => Effect.andThen(Deferred.succeed(entered, undefined), Effect.never)),
          { startImmediately: true }
        )
        const peer = yield* connect(server)
        yield* Deferred.await(entered)
        const closing = yield* Effect.forkDetach(Fiber.interrupt(run), { startImmediately: true })
        while (!(yield* Peers.isRefused(portOf(server)))) yield* Effect.yieldNow
        yield* TestClock.adjust("59 minutes")
        assert.isUndefined(closing.pollUnsafe())
        assert.isFalse(peer.isClosed)
        yield* TestClock.adjust("1 minute")
        yield* Fiber.await(closing)
        yield* peer.closed
        yield* Scope.close(scope, Exit.void)
      }).pipe(Effect.scoped)
    )

    it.live("of one of several runs waits for its handlers alone, and the listener goes on", () =>
      Effect.gen(function* () {
        const server = yield* KmsTcp.make(local)
        const latch = Latch.makeUnsafe()
        const entered = yield* Deferred.make<void>()
        yield* serve(server, echo)
        const second = yield* serve(server, (socket) =>
          Effect.scoped(
            Effect.gen(function* () {
              yield* read(socket)
              yield* Deferred.succeed(entered, undefined)
              yield* latch.await
              const { write } = yield* socket.writer
              yield* write("finished")
            })
          )
        )
        const peer = yield* connect(server)
        peer.send("go")
        yield* Deferred.await(entered)
        const closing = yield* Effect.forkScoped(Fiber.interrupt(second), { startImmediately: true })
        const other = yield* connect(server)
        other.send("still served")
        assert.strictEqual(yield* text(other, 12), "still served")
        assert.isUndefined(closing.pollUnsafe())
        latch.openUnsafe()
        assert.strictEqual(yield* text(peer, 8), "finished")
        yield* Fiber.await(closing)
        other.send("!")
        assert.strictEqual(yield* text(other, 13), "still served!")
        other.socket.end()
        yield* other.closed
      }).pipe(Effect.scoped)
    )

    it.live("of the last run is that of the listener: it stops accepting, and says so to whoever runs after it", () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const logger = Logger.make(({ message }) => void log.push(String(message)))
        const server = yield* KmsTcp.make({ ...local, name: "mine" })
        const run = yield* serve(server, echo)
        yield* Fiber.interrupt(run)
        assert.isTrue(yield* Peers.isRefused(portOf(server)))
        yield* serve(server, echo).pipe(Effect.provideService(Logger.CurrentLoggers, new Set([logger])))
        yield* Effect.yieldNow
        assert.deepStrictEqual(log, ["mine has been drained: it takes no connections"])
      }).pipe(Effect.scoped)
    )

    it.live("delivers the last bytes of a handler that has ended, however long its peer takes to read them", () =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const written = yield* Deferred.make<void>()
        const app = Layer.effectDiscard(
          Effect.gen(function* () {
            const server = yield* SocketServer.SocketServer
            yield* serve(server, (socket) =>
              Effect.scoped(
                Effect.gen(function* () {
                  yield* read(socket)
                  const own = yield* NodeSocket.NetSocket
                  // All of it is in the hands of Node, and most of it nowhere else.
                  yield* Effect.sync(() => own.write(Buffer.alloc(16_000_000, "x")))
                  yield* Deferred.succeed(written, undefined)
                })
              )
            )
            yield* Deferred.succeed(ready, server)
          })
        ).pipe(Layer.provide(KmsTcp.layer({ ...local, closeTimeout: 100 })))
        const program = yield* Ways.launchSignal.start(app)
        const peer = yield* connect(yield* Deferred.await(ready))
        peer.socket.pause()
        peer.send("go")
        yield* Deferred.await(written)
        program.begin()
        // Longer than it would have to close its half.
        yield* Effect.sleep("300 millis")
        assert.isFalse(program.isEnded())
        peer.socket.resume()
        const { ended, error } = yield* peer.closed
        assert.deepStrictEqual([ended, error], [true, undefined])
        assert.lengthOf(yield* peer.raw(16_000_000), 16_000_000)
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("closes connections that nobody runs a handler for", () =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const app = Layer.effectDiscard(
          Effect.flatMap(SocketServer.SocketServer, (server) => Deferred.succeed(ready, server))
        ).pipe(Layer.provide(KmsTcp.layer(local)))
        const program = yield* Ways.launchSignal.start(app)
        const peer = yield* connect(yield* Deferred.await(ready))
        peer.send("anyone?")
        program.begin()
        yield* peer.closed
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("gives a socket that was passed on closeTimeout, or as long as somebody reads it", () =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const sockets = yield* Queue.unbounded<Socket.Socket>()
        const app = Layer.effectDiscard(
          Effect.gen(function* () {
            const server = yield* SocketServer.SocketServer
            yield* serve(server, (socket) => Queue.offer(sockets, socket))
            yield* Deferred.succeed(ready, server)
          })
        ).pipe(Layer.provide(KmsTcp.layer({ ...local, closeTimeout: 50 })))
        const program = yield* Ways.launchSignal.start(app)
        const server = yield* Deferred.await(ready)
        const read = yield* connect(server)
        const reader = yield* Queue.take(sockets)
        const reading = yield* Effect.forkScoped(echo(reader), { startImmediately: true })
        read.send("one")
        yield* read.raw(3)
        const forgotten = yield* connect(server)
        yield* Queue.take(sockets)
        program.begin()
        yield* forgotten.closed
        read.send("two")
        assert.strictEqual(yield* text(read, 6), "onetwo")
        yield* Fiber.interrupt(reading)
        const { ended, error } = yield* read.closed
        assert.deepStrictEqual([ended, error], [true, undefined])
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("lets whoever a socket was passed on to hand a job on when it has closed", () =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const go = yield* Deferred.make<void>()
        const opened = yield* Deferred.make<void>()
        const lines: Array<string> = []
        const sockets = yield* Queue.unbounded<readonly [Socket.Socket, NodeSocket.NetSocket["Service"]]>()
        const job = Effect.sleep("50 millis").pipe(
          Effect.andThen(Effect.sync(() => lines.push("job"))),
          Kms.busy("job")
        )
        const app = Layer.effectDiscard(
          Effect.gen(function* () {
            yield* Effect.addFinalizer(() => Effect.sync(() => lines.push("closed")))
            const server = yield* SocketServer.SocketServer
            yield* serve(server, (socket) =>
              Effect.flatMap(NodeSocket.NetSocket, (own) => Queue.offer(sockets, [socket, own]))
            )
            yield* Effect.gen(function* () {
              yield* Deferred.await(go)
              const [socket, own] = yield* Queue.take(sockets)
              const reading = Effect.flatMap(socket.reader, ({ pull }) => {
                setImmediate(() => own.destroy())
                return Effect.andThen(Deferred.succeed(opened, undefined), pull)
              })
              yield* Effect.ignore(Effect.scoped(reading))
              yield* job
            }).pipe(Effect.forkScoped)
            yield* Deferred.succeed(ready, server)
          })
        ).pipe(Layer.provide(KmsTcp.layer(local)))
        const program = yield* Ways.launchSignal.start(app)
        yield* connect(yield* Deferred.await(ready))
        const held = yield* Queue.take(sockets)
        yield* Queue.offer(sockets, held)
        yield* Ways.drain(program, () => (held[1] as unknown as { readonly server: NodeServer }).server)
        // The turn that follows the beginning of the drain is over by then.
        yield* Effect.sleep("50 millis")
        yield* Deferred.succeed(go, undefined)
        yield* Deferred.await(opened)
        assert.strictEqual((yield* program.ended).code, 0)
        assert.deepStrictEqual(lines, ["job", "closed"])
      }).pipe(Effect.scoped)
    )

    it.live("gives the peer of a handler that has let go of its socket and worked on its closeTimeout at the end", () =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const read = yield* Deferred.make<void>()
        const app = Layer.effectDiscard(
          Effect.gen(function* () {
            const server = yield* SocketServer.SocketServer
            yield* serve(server, (socket) =>
              Effect.scoped(Effect.flatMap(socket.reader, ({ pull }) => pull)).pipe(
                Effect.andThen(Deferred.succeed(read, undefined)),
                Effect.andThen(Effect.sleep("400 millis"))
              )
            )
            yield* Deferred.succeed(ready, server)
          })
        ).pipe(Layer.provide(KmsTcp.layer({ ...local, closeTimeout: 100 })))
        const program = yield* Ways.launchSignal.start(app)
        const peer = yield* Peers.connect(portOf(yield* Deferred.await(ready)), { raw: true, allowHalfOpen: true })
        peer.send("hello")
        yield* Deferred.await(read)
        program.begin()
        const { code, report } = yield* program.ended
        assert.strictEqual(code, 0)
        assert.isFalse(report?.forced, "it has not waited for the deadline")
      }).pipe(Effect.scoped)
    )

    it.live("with drainOn: release goes on accepting until its scope closes, busy sections and all", () =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const releasing = yield* Deferred.make<void>()
        const latch = Latch.makeUnsafe()
        const admin = Layer.effectDiscard(
          Effect.gen(function* () {
            const server = yield* SocketServer.SocketServer
            yield* serve(server, (socket) =>
              Effect.scoped(
                Effect.gen(function* () {
                  yield* read(socket)
                  const { write } = yield* socket.writer
                  yield* Kms.busy("late")(write((yield* Kms.phase)._tag))
                })
              )
            )
            yield* Deferred.succeed(ready, server)
          })
        ).pipe(Layer.provide(KmsTcp.layer({ ...local, drainOn: "release" })))
        const app = Layer.effectDiscard(
          Effect.addFinalizer(() => Effect.andThen(Deferred.succeed(releasing, undefined), latch.await))
        ).pipe(Layer.provide(admin))
        const program = yield* Ways.launchSignal.start(app)
        const server = yield* Deferred.await(ready)
        program.begin()
        yield* Deferred.await(releasing)
        const peer = yield* connect(server)
        peer.send("which phase?")
        yield* peer.closed
        assert.strictEqual(yield* text(peer, 9), "Unwinding")
        latch.openUnsafe()
        assert.strictEqual((yield* program.ended).code, 0)
        assert.isTrue(yield* Peers.isRefused(portOf(server)))
      }).pipe(Effect.scoped)
    )

    /** A program on a late listener, whose handlers do `work` while the application above it is being released. */
    const late = (
      options: Partial<KmsTcp.Options>,
      handler: (socket: Socket.Socket) => Effect.Effect<unknown, unknown, Scope.Scope>
    ) =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const releasing = yield* Deferred.make<void>()
        const latch = Latch.makeUnsafe()
        const beneath = Layer.effectDiscard(
          Effect.gen(function* () {
            const server = yield* SocketServer.SocketServer
            yield* serve(server, (socket) => handler(socket))
            yield* Deferred.succeed(ready, server)
          })
        ).pipe(Layer.provide(KmsTcp.layer({ ...local, drainOn: "release", ...options })))
        const app = Layer.effectDiscard(
          Effect.addFinalizer(() => Effect.andThen(Deferred.succeed(releasing, undefined), latch.await))
        ).pipe(Layer.provide(beneath))
        const program = yield* Ways.launchSignal.start(app, { timeout: 5000 })
        const peer = yield* connect(yield* Deferred.await(ready))
        program.begin()
        yield* Deferred.await(releasing)
        return { peer, program, release: () => latch.openUnsafe() }
      })

    it.live("with drainOn: release does not interrupt a busy section that began when no other may", () =>
      Effect.gen(function* () {
        const entered = yield* Deferred.make<void>()
        const go = Latch.makeUnsafe()
        const { peer, program, release } = yield* late({ onDrain: "interrupt" }, (socket) =>
          Effect.scoped(
            Effect.gen(function* () {
              yield* read(socket)
              const { write } = yield* socket.writer
              yield* Kms.busy("late")(
                Effect.andThen(Deferred.succeed(entered, undefined), Effect.andThen(go.await, write("whole")))
              )
              return yield* Effect.never
            })
          )
        )
        peer.send("go")
        yield* Deferred.await(entered)
        release()
        yield* Effect.sleep("30 millis")
        go.openUnsafe()
        assert.strictEqual(yield* text(peer, 5), "whole")
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("with drainOn: release lets whoever a socket was passed on to begin a busy section", () =>
      Effect.gen(function* () {
        const { peer, program, release } = yield* late({}, (socket) =>
          Effect.forkDetach(
            Effect.scoped(
              Effect.gen(function* () {
                const question = yield* read(socket)
                const { write } = yield* socket.writer
                yield* Kms.busy("late")(write(`answer to ${question}`))
              })
            )
          )
        )
        yield* Effect.sleep("20 millis")
        peer.send("this")
        assert.strictEqual(yield* text(peer, 14), "answer to this")
        release()
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.scoped)
    )

    it.live("is heard of by a fiber that has outlived its handler, as that of the shutdown", () =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<Server>()
        const heard = yield* Deferred.make<void>()
        const app = Layer.effectDiscard(
          Effect.gen(function* () {
            const server = yield* SocketServer.SocketServer
            yield* serve(server, (socket) =>
              Effect.andThen(
                Effect.forkDetach(Effect.andThen(Kms.draining, Deferred.succeed(heard, undefined))),
                echo(socket)
              )
            )
            yield* Deferred.succeed(ready, server)
          })
        ).pipe(Layer.provide(KmsTcp.layer(local)))
        const program = yield* Ways.launchSignal.start(app)
        const peer = yield* connect(yield* Deferred.await(ready))
        peer.send("x")
        yield* peer.raw(1)
        peer.socket.end()
        yield* peer.closed
        assert.isFalse(Deferred.isDoneUnsafe(heard))
        program.begin()
        yield* Deferred.await(heard)
        yield* program.ended
      }).pipe(Effect.scoped)
    )

    it.live("a peer that nobody handles sees the end of its connection, also if it has sent a lot", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const server = yield* Scope.provide(KmsTcp.make({ ...local, closeTimeout: "20 seconds" }), scope)
        const peer = yield* connect(server)
        peer.send(Buffer.alloc(2_000_000))
        yield* Effect.sleep("20 millis")
        yield* Scope.close(scope, Exit.void)
        const { ended, error } = yield* peer.closed
        assert.deepStrictEqual([ended, error], [true, undefined])
      }).pipe(Effect.scoped)
    )

    it.live("waits for a peer that has sent something no longer than for any other", () =>
      Effect.gen(function* () {
        const server = yield* KmsTcp.make({ ...local, closeTimeout: 1500 })
        const sockets = yield* Queue.unbounded<NodeSocket.NetSocket["Service"]>()
        yield* serve(server, (socket) =>
          Effect.andThen(
            Effect.flatMap(NodeSocket.NetSocket, (own) => Queue.offer(sockets, own)),
            Effect.scoped(read(socket))
          )
        )
        const peer = yield* Peers.connect(portOf(server), { raw: true, allowHalfOpen: true })
        peer.send("hello")
        yield* peer.end
        const ended = performance.now()
        const socket = yield* Queue.take(sockets)
        yield* Effect.callback<void>((resume) =>
          socket.closed ? resume(Effect.void) : void socket.once("close", () => resume(Effect.void))
        )
        assert.isBelow(performance.now() - ended, 2900)
      }).pipe(Effect.scoped)
    )

    it.live("waits for a peer to close its half no longer than closeTimeout, also while nothing drains", () =>
      Effect.gen(function* () {
        const server = yield* KmsTcp.make({ ...local, closeTimeout: 100 })
        const sockets = yield* Queue.unbounded<NodeSocket.NetSocket["Service"]>()
        yield* serve(server, (socket) =>
          Effect.scoped(
            Effect.gen(function* () {
              yield* Queue.offer(sockets, yield* NodeSocket.NetSocket)
              yield* socket.reader
              const { write } = yield* socket.writer
              yield* write("that is all")
            })
          )
        )
        const peer = yield* Peers.connect(portOf(server), { raw: true, allowHalfOpen: true })
        assert.strictEqual(yield* text(peer, 11), "that is all")
        yield* peer.end
        const socket = yield* Queue.take(sockets)
        // The peer never ends its half.
        yield* Effect.callback<void>((resume) =>
          socket.closed ? resume(Effect.void) : void socket.once("close", () => resume(Effect.void))
        )
        assert.isTrue(socket.destroyed)
      }).pipe(Effect.scoped)
    )

    it.live("goes on when a connection could not be accepted, and tells of it", () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const logger = Logger.make(({ message }) => void log.push(String(message)))
        const server = yield* KmsTcp.make({ ...local, name: "mine" }).pipe(
          Effect.provideService(Logger.CurrentLoggers, new Set([logger]))
        )
        const sockets = yield* Queue.unbounded<NodeSocket.NetSocket["Service"]>()
        yield* serve(server, () => Effect.flatMap(NodeSocket.NetSocket, (socket) => Queue.offer(sockets, socket)))
        yield* connect(server)
        // As Node does where the process has too many files open.
        const { server: own } = (yield* Queue.take(sockets)) as unknown as { readonly server: EventEmitter }
        own.emit("error", new Error("accept EMFILE"))
        yield* connect(server)
        yield* Queue.take(sockets)
        assert.deepStrictEqual(log, ["mine: accept EMFILE"])
      }).pipe(Effect.scoped)
    )

    it.live("status tells of a handler, and of who is at its other end", () =>
      Effect.gen(function* () {
        const latch = Latch.makeUnsafe()
        const entered = yield* Deferred.make<Kms.Status>()
        const ready = yield* Deferred.make<Server>()
        const app = Layer.effectDiscard(
          Effect.gen(function* () {
            const server = yield* SocketServer.SocketServer
            yield* serve(server, () =>
              Effect.andThen(
                Effect.flatMap(Kms.status, (status) => Deferred.succeed(entered, status)),
                latch.await
              )
            )
            yield* Deferred.succeed(ready, server)
          })
        ).pipe(Layer.provide(KmsTcp.layer({ ...local, name: "lines" })))
        const program = yield* Ways.launchSignal.start(app)
        yield* connect(yield* Deferred.await(ready))
        const [listener] = (yield* Deferred.await(entered)).listeners
        assert.deepInclude(listener, { name: "lines", kind: "tcp", phase: "open", connections: 1, inFlight: 1 })
        const [oldest] = listener!.oldest
        assert.strictEqual(oldest!.what, "connection")
        assert.match(oldest!.peer, /^127\.0\.0\.1:\d+$/)
        latch.openUnsafe()
        program.begin()
        const { exit } = yield* program.ended
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      }).pipe(Effect.scoped)
    )
  })
})
