/**
 * Binding, and the way in which a bound server stops. The path of a Unix socket has rules of its own: `unix.test.ts`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createServer as createHttpServer } from "node:http"
import { type AddressInfo, connect, createServer, type Server } from "node:net"
import { join } from "node:path"
import * as Bind from "../src/internal/bind.ts"
import * as Program from "./support/program.ts"
import { ask, directory, server } from "./support/unix.ts"

const closing = (self: Server) =>
  Effect.acquireRelease(Effect.succeed(self), () => Effect.sync(() => void self.close()))

const local: Bind.Options = { port: 0, host: "127.0.0.1" }

/** Opens a socket with a queue of 128 as descriptor 3, and becomes the program that its arguments name. */
const giver = `
  use Socket; use POSIX; $^F = 10;
  socket(my $socket, PF_INET, SOCK_STREAM, 0); bind($socket, sockaddr_in(0, INADDR_LOOPBACK)); listen($socket, 128);
  POSIX::dup2(fileno($socket), 3);
  exec @ARGV;
`

describe("listen", () => {
  for (const [backlog, pattern] of [
    [1, /^connected [1-3]$/m],
    [100, /^connected 10$/m]
  ] as const) {
    it.live(`gives a descriptor that it was given a queue of ${backlog}`, () =>
      Effect.gen(function* () {
        const file = Program.beside(import.meta.url, "support/backlog.ts")
        const program = yield* Program.start("-e", {
          command: ["perl"],
          args: [giver, process.execPath, file, String(backlog)]
        })
        yield* program.ended
        assert.match(program.output(), pattern)
      })
    )
  }

  it.live("tells the port that it got", () =>
    Effect.gen(function* () {
      const self = yield* closing(createServer())
      const { address } = yield* Bind.listen(self, local)
      assert.strictEqual(address, `:${(self.address() as AddressInfo).port}`)
    })
  )

  it.live("takes a path over a port that is there and undefined", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "app.sock")
      const bound = yield* Bind.listen(yield* server("ours"), { path, port: undefined } as unknown as Bind.Options)
      assert.strictEqual(bound.address, path)
      assert.strictEqual(yield* ask(path), "ours")
    })
  )

  it.live("takes a port over a path, as Node does", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "app.sock")
      const bound = yield* Bind.listen(yield* server("ours"), { path, ...local })
      assert.match(bound.address, /^:\d+$/)
      assert.strictEqual(yield* ask(path), "ENOENT")
    })
  )

  it.live("takes no mode for what has no file", () =>
    Effect.gen(function* () {
      const self = yield* closing(createServer())
      const error = yield* Effect.flip(Bind.listen(self, { ...local, mode: 0o600 }))
      assert.strictEqual(
        error.message,
        "Cannot listen on 127.0.0.1:0: this process makes no file there that could have a mode"
      )
      assert.isFalse(self.listening)
    })
  )
})

describe("stop", () => {
  it.live("accepts nobody any more, and says `close` once however often it is called", () =>
    Effect.gen(function* () {
      const self = createServer()
      const bound = yield* Bind.listen(self, local)
      const { port } = self.address() as AddressInfo
      let times = 0
      self.on("close", () => times++)
      bound.stop()
      bound.stop()
      yield* Effect.callback<void>((resume) => void self.once("close", () => resume(Effect.void)))
      bound.stop()
      const code = yield* Effect.callback<string | undefined>((resume) => {
        const socket = connect({ port, host: "127.0.0.1" })
        socket.on("error", ({ code }: NodeJS.ErrnoException) => resume(Effect.succeed(code)))
      })
      assert.strictEqual(code, "ECONNREFUSED")
      assert.strictEqual(times, 1)
    })
  )

  it.live("leaves a response that is on its way alone", () =>
    Effect.gen(function* () {
      const body = Buffer.alloc(20_000_000, "x")
      const self = yield* closing(createHttpServer((_, response) => void response.end(body)))
      const ended = Effect.callback<void>((resume) => void self.once("request", () => resume(Effect.void)))
      const bound = yield* Bind.listen(self, local)
      const peer = connect({ port: (self.address() as AddressInfo).port, host: "127.0.0.1" })
      peer.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
      yield* ended
      // Node takes the connection for idle now.
      yield* turn
      bound.stop()
      let bytes = 0
      yield* Effect.callback<void>((resume) => {
        peer.on("data", (chunk: Buffer) => void (bytes += chunk.length))
        peer.on("error", () => {})
        peer.on("close", () => resume(Effect.void))
      })
      assert.isAbove(bytes, body.length)
    })
  )
})

const turn = Effect.callback<void>((resume) => void setImmediate(() => setImmediate(() => resume(Effect.void))))
