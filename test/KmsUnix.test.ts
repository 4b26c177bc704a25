/**
 * Unix-domain sockets: the file is the listener's from before the first connection until it stops accepting. The rules for
 * the file are in `unix.test.ts`; here, that each listener keeps them. What each kind of peer sees is in `peers.test.ts`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Latch, Layer, type Scope } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { SocketServer } from "effect/socket"
import { KmsHttp, KmsTcp, KmsUnix } from "effect-kms"
import { randomUUID } from "node:crypto"
import { existsSync, lstatSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { createServer, request } from "node:http"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Ways from "./support/ways.ts"

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "kms-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const modeOf = (path: string) => lstatSync(path).mode & 0o777

/** Everything that comes on a connection to `path`, or the code of the error that ends it. */
const read = (path: string, onConnect = () => {}): Effect.Effect<string> =>
  Effect.callback((resume) => {
    let text = ""
    const socket = connect(path, onConnect)
    socket.on("data", (chunk) => (text += String(chunk)))
    socket.on("end", () => resume(Effect.succeed(text)))
    socket.on("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code!)))
    return Effect.sync(() => socket.destroy())
  })

/** Says a word, once `latch` is open. */
const sayer = (entered: Deferred.Deferred<void>, latch: Latch.Latch) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const server = yield* SocketServer.SocketServer
      yield* server
        .run((socket) =>
          Effect.scoped(
            Effect.gen(function* () {
              yield* socket.reader
              const { write } = yield* socket.writer
              yield* Deferred.succeed(entered, undefined)
              yield* latch.await
              yield* write("word")
            })
          )
        )
        .pipe(Effect.forkScoped)
    })
  )

describe("KmsUnix", () => {
  it.live.each(Ways.ways)("$name: finishes what is in flight, with its file gone as soon as the drain begins", (way) =>
    Effect.gen(function* () {
      const path = join(yield* directory, "socket")
      const entered = yield* Deferred.make<void>()
      const latch = Latch.makeUnsafe()
      const program = yield* way.start(sayer(entered, latch).pipe(Layer.provide(KmsUnix.layer({ path }))))
      assert.strictEqual(modeOf(path), 0o600)
      const reading = yield* Effect.forkScoped(read(path), { startImmediately: true })
      yield* Deferred.await(entered)
      program.begin()
      while (existsSync(path)) yield* Effect.yieldNow
      assert.strictEqual(yield* read(path), "ENOENT")
      assert.isFalse(program.isEnded())
      latch.openUnsafe()
      assert.strictEqual(yield* Fiber.join(reading), "word")
      const { report } = yield* program.ended
      if (report !== undefined) {
        const [listener] = report.listeners
        assert.deepInclude(listener, { kind: "unix", address: path, name: `unix ${path}`, drained: 1, cut: 0 })
      }
    }).pipe(Effect.scoped)
  )

  it.live("a second one takes the path over while the first still drains, and keeps it", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "socket")
      const entered = yield* Deferred.make<void>()
      const latch = Latch.makeUnsafe()
      const open = Latch.makeUnsafe(true)
      const first = yield* Ways.launchSignal.start(sayer(entered, latch).pipe(Layer.provide(KmsUnix.layer({ path }))))
      const reading = yield* Effect.forkScoped(read(path), { startImmediately: true })
      yield* Deferred.await(entered)
      first.begin()
      while (existsSync(path)) yield* Effect.yieldNow
      const next = yield* Deferred.make<void>()
      yield* Ways.launchSignal.start(sayer(next, open).pipe(Layer.provide(KmsUnix.layer({ path }))))
      assert.strictEqual(yield* read(path), "word")
      latch.openUnsafe()
      assert.strictEqual(yield* Fiber.join(reading), "word")
      yield* first.ended
      assert.strictEqual(yield* read(path), "word")
    }).pipe(Effect.scoped)
  )

  it.live("says what is wrong with its options, and with its path", () =>
    Effect.gen(function* () {
      const dir = yield* directory
      const file = join(dir, "file")
      writeFileSync(file, "precious")
      const message = (options: KmsUnix.Options) =>
        Effect.map(Effect.flip(Effect.scoped(KmsUnix.make(options))), (error) => error.message)
      assert.strictEqual(yield* message({ path: file }), `Cannot listen on ${file}: not a socket`)
      assert.strictEqual(
        yield* message({ path: join(dir, "none", "socket") }),
        `Cannot listen on ${join(dir, "none", "socket")}: there is no such directory`
      )
      assert.match(
        yield* message({ path: join(dir, "socket"), mode: 0o1777 }),
        /^Option mode is 1023: 0o1777 is not from 0 to 0o777$/
      )
      assert.deepStrictEqual(readdirSync(dir), ["file"])
    }).pipe(Effect.scoped)
  )

  it.live.runIf(process.platform === "linux")("listens on a name in the abstract namespace, which has no file", () =>
    Effect.gen(function* () {
      const path = `\0effect-kms-${randomUUID()}`
      const entered = yield* Deferred.make<void>()
      const app = sayer(entered, Latch.makeUnsafe(true)).pipe(Layer.provide(KmsUnix.layer({ path })))
      const program = yield* Ways.launchSignal.start(app)
      assert.strictEqual(yield* read(path), "word")
      program.begin()
      const { report } = yield* program.ended
      assert.strictEqual(report!.listeners[0]!.name, `unix @${path.slice(1)}`)
      assert.strictEqual(yield* read(path), "ECONNREFUSED")
      const message = yield* Effect.map(Effect.flip(Effect.scoped(KmsUnix.make({ path, mode: 0o600 }))), String)
      assert.match(message, /this process makes no file there that could have a mode/)
    }).pipe(Effect.scoped)
  )

  it.live("an empty path is none", () =>
    Effect.gen(function* () {
      const { message } = yield* Effect.flip(Effect.scoped(KmsUnix.make({ path: "" })))
      assert.strictEqual(message, 'Cannot listen on "": the path is empty')
    })
  )

  it.live("KmsTcp with a path keeps the same rules", () =>
    Effect.gen(function* () {
      const dir = yield* directory
      const path = join(dir, "socket")
      const entered = yield* Deferred.make<void>()
      const app = sayer(entered, Latch.makeUnsafe(true)).pipe(Layer.provide(KmsTcp.layer({ path, mode: 0o660 })))
      const program = yield* Ways.launchSignal.start(app)
      assert.strictEqual(modeOf(path), 0o660)
      const again = yield* Effect.flip(Effect.scoped(KmsTcp.make({ path })))
      assert.strictEqual(again.message, `Cannot listen on ${path}: the address is in use`)
      assert.strictEqual(yield* read(path), "word")
      program.begin()
      yield* program.ended
      assert.deepStrictEqual(readdirSync(dir), [])
    }).pipe(Effect.scoped)
  )

  it.live("KmsHttp with a path keeps the same rules, and says where it listens", () =>
    Effect.gen(function* () {
      const dir = yield* directory
      const path = join(dir, "socket")
      const addresses: Array<unknown> = []
      const evaluate = () => {
        const server = createServer()
        return server.on("listening", () => addresses.push([server.address(), modeOf(path)]))
      }
      const serve = (options: Partial<KmsHttp.Options>) =>
        HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("over a file")), {
          disableListenLog: true,
          disableLogger: true
        }).pipe(Layer.provide(KmsHttp.layer(evaluate, { path, ...options })))
      const program = yield* Ways.launchSignal.start(serve({ mode: 0o666 }))
      assert.deepStrictEqual(addresses, [[path, 0o666]])
      const again = yield* Effect.flip(Effect.scoped(Layer.build(serve({}))))
      assert.strictEqual(again.message, `Cannot listen on ${path}: the address is in use`)
      assert.strictEqual(yield* get(path), "over a file")
      program.begin()
      const { report } = yield* program.ended
      assert.strictEqual(report!.listeners[0]!.name, `http ${path}`)
      assert.deepStrictEqual(readdirSync(dir), [])
      const wrong = yield* Effect.flip(Effect.scoped(Layer.build(serve({ mode: -1 }))))
      assert.match(wrong.message, /^Option mode is /)
    }).pipe(Effect.scoped)
  )
})

const get = (socketPath: string): Effect.Effect<string, Error, Scope.Scope> =>
  Effect.callback((resume) => {
    const sent = request({ socketPath, path: "/", agent: false }, (response) => {
      let text = ""
      response.on("data", (chunk) => (text += String(chunk)))
      response.on("end", () => resume(Effect.succeed(text)))
    })
    sent.on("error", (error) => resume(Effect.fail(error)))
    sent.end()
  })
