/**
 * The application that peers are played against: one path for each thing that may be going on when a drain begins. It says
 * when a handler has been entered, holds the slow ones until it is told, and notes whoever meets something closed.
 */
import { Effect, Latch, Layer, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { Socket as EffectSocket } from "effect/socket"
import { createHash, randomFillSync } from "node:crypto"
import { createServer as createHttp, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import { createSecureServer as createHttp2Secure, createServer as createHttp2 } from "node:http2"
import { createServer as createHttps } from "node:https"
import type { Socket } from "node:net"
import { Readable } from "node:stream"
import { cert, key } from "./certificate.ts"

/** One kind of server, and what is spoken with it. */
export interface Protocol {
  readonly name: string
  readonly tls: boolean
  readonly make: () => Server
}

export const http: Protocol = { name: "http", tls: false, make: () => createHttp() }
export const https: Protocol = { name: "https", tls: true, make: () => createHttps({ key, cert }) }
export const http1over2: Protocol = {
  name: "http/1.1 on an http2 server",
  tls: true,
  make: () => createHttp2Secure({ key, cert, allowHTTP1: true }) as unknown as Server
}
export const h2c: Protocol = { name: "http2 in the clear", tls: false, make: () => createHttp2() as unknown as Server }
export const h2: Protocol = {
  name: "http2",
  tls: true,
  make: () => createHttp2Secure({ key, cert }) as unknown as Server
}

/** 64 MB, and their hash. */
export const big = (): { readonly bytes: Buffer; readonly hash: string } => {
  made ??= make()
  return made
}
let made: ReturnType<typeof make> | undefined
const make = () => {
  const bytes = randomFillSync(Buffer.allocUnsafe(64 * 1024 * 1024))
  return { bytes, hash: createHash("sha256").update(bytes).digest("hex") }
}

export class Stage {
  server!: Server
  /** Every connection that the server has accepted, and those with a plain text to read: over TLS, whose handshake is done. */
  readonly carriers: Array<Socket> = []
  readonly sockets: Array<Socket> = []
  /** The resource beneath the listener is open. */
  open = false
  /** Those who met it closed. */
  readonly trouble: Array<string> = []
  /** Handlers that were told of the end. */
  readonly told: Array<string> = []
  private readonly entries = new Map<string, number>()
  private readonly waiting = new Set<() => void>()
  readonly latch = Latch.makeUnsafe()

  /** Calls a server into being, and keeps it. */
  evaluate(protocol: Protocol) {
    return (): Server => {
      this.server = protocol.make()
      this.server.on("connection", (socket) => this.carriers.push(socket))
      this.server.on(protocol.tls ? "secureConnection" : "connection", (socket) => this.sockets.push(socket))
      return this.server
    }
  }

  /** A handler for `path` has begun. */
  enter(path: string): void {
    this.entries.set(path, (this.entries.get(path) ?? 0) + 1)
    for (const look of Array.from(this.waiting)) look()
  }

  /** How many handlers for `path` have begun. */
  times(path: string): number {
    return this.entries.get(path) ?? 0
  }

  /** A handler for `path` is about to end well: what it may need has to be there. */
  leave(path: string): void {
    if (!this.open) this.trouble.push(path)
  }

  /** Completes when as many handlers for `path` have begun. */
  entered(path: string, count = 1): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const look = () => {
        if (this.times(path) < count) return
        this.waiting.delete(look)
        resume(Effect.void)
      }
      this.waiting.add(look)
      look()
      return Effect.sync(() => this.waiting.delete(look))
    })
  }

  /** Lets the slow handlers go on. */
  release(): void {
    this.latch.openUnsafe()
  }

  readonly resource = Layer.effectDiscard(
    Effect.acquireRelease(
      Effect.sync(() => {
        this.open = true
      }),
      () =>
        Effect.sync(() => {
          this.open = false
        })
    )
  )

  // --- As an Effect application ---

  private readonly held = (path: string) =>
    Effect.suspend(() => {
      this.enter(path)
      return Effect.andThen(
        this.latch.await,
        Effect.sync(() => this.leave(path))
      )
    })

  /** Takes the upgrade that is asked for, and sends everything back. */
  readonly echo = (path: string) =>
    Effect.gen({ self: this }, function* () {
      this.enter(path)
      const request = yield* HttpServerRequest.HttpServerRequest
      return yield* echo(yield* request.upgrade)
    }).pipe(
      Effect.onInterrupt(() =>
        Effect.sync(() => {
          this.told.push(path)
          this.leave(path)
        })
      ),
      Effect.scoped,
      Effect.orElseSucceed(() => HttpServerResponse.empty())
    )

  readonly routes = Layer.mergeAll(
    HttpRouter.add("GET", "/ok", HttpServerResponse.text("ok")),
    HttpRouter.add("GET", "/slow", Effect.as(this.held("/slow"), HttpServerResponse.text("slow"))),
    HttpRouter.add(
      "GET",
      "/chunked",
      Effect.sync(() => HttpServerResponse.stream(this.chunks.pipe(Stream.map((text) => Buffer.from(text)))))
    ),
    HttpRouter.add("POST", "/upload", (request) =>
      Effect.gen({ self: this }, function* () {
        this.enter("/upload")
        const body = yield* request.arrayBuffer
        this.leave("/upload")
        return HttpServerResponse.text(digest(Buffer.from(body)))
      }).pipe(Effect.orDie)
    ),
    HttpRouter.add("POST", "/unread", HttpServerResponse.text("unread")),
    HttpRouter.add(
      "GET",
      "/proxied",
      Effect.as(this.held("/proxied"), HttpServerResponse.text("proxied", { headers: { connection: "keep-alive" } }))
    ),
    HttpRouter.add("POST", "/upload-later", (request) =>
      Effect.andThen(
        this.held("/upload-later"),
        Effect.map(request.arrayBuffer, (body) => HttpServerResponse.text(digest(Buffer.from(body))))
      ).pipe(Effect.orDie)
    ),
    HttpRouter.add(
      "GET",
      "/big",
      Effect.sync(() => HttpServerResponse.uint8Array(big().bytes))
    ),
    HttpRouter.add(
      "GET",
      "/big-stream",
      Effect.sync(() => HttpServerResponse.stream(Stream.fromIterable(pieces(big().bytes))))
    ),
    HttpRouter.add(
      "GET",
      "/events",
      Effect.sync(() => {
        this.enter("/events")
        const events = Stream.tick("20 millis").pipe(Stream.map(() => Buffer.from(event)))
        return HttpServerResponse.stream(events, { contentType: "text/event-stream" })
      })
    ),
    HttpRouter.add(
      "GET",
      "/raw-events",
      Effect.sync(() => {
        this.enter("/raw-events")
        const body = new Readable({ read() {} })
        body.push(event)
        return HttpServerResponse.raw(body, { contentType: "text/event-stream" })
      })
    ),
    HttpRouter.add("GET", "/ws", this.echo("/ws")),
    HttpRouter.add("GET", "/echo", this.echo("/echo")),
    HttpRouter.add(
      "GET",
      "/never",
      Effect.suspend(() => {
        this.enter("/never")
        return Effect.never
      })
    ),
    HttpRouter.add(
      "GET",
      "/stubborn",
      Effect.uninterruptible(
        Effect.suspend(() => {
          this.enter("/stubborn")
          return Effect.never
        })
      )
    )
  )

  private readonly chunks = Stream.concat(
    Stream.make("first\n"),
    Stream.unwrap(Effect.as(this.held("/chunked"), Stream.fromIterable(lines)))
  )

  // --- As a plain listener of `node:http` ---

  readonly onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const path = request.url!
    this.enter(path)
    const held = (f: () => void) =>
      Effect.runFork(this.latch.await).addObserver(() => {
        this.leave(path)
        f()
      })
    switch (path) {
      case "/ok":
        return void response.end("ok")
      case "/slow":
        return void held(() => response.end("slow"))
      case "/chunked":
        response.write("first\n")
        return void held(() => response.end(lines.join("")))
      case "/upload": {
        const parts: Array<Buffer> = []
        request.on("data", (part: Buffer) => parts.push(part))
        return void request.on("end", () => response.end(digest(Buffer.concat(parts))))
      }
      case "/big":
        return void response.end(big().bytes)
      case "/events":
        response.setHeader("Content-Type", "text/event-stream")
        return this.tick(response)
      case "/head-only-events":
        response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" })
        return this.tick(response)
      default:
      // It never answers.
    }
  }

  private tick(response: ServerResponse): void {
    const timer = setInterval(() => response.write(event), 20)
    response.write(event)
    response.on("close", () => clearInterval(timer))
  }
}

export const event = "data: x\n\n"

const lines = Array.from({ length: 100 }, (_, index) => `line ${index} ${"x".repeat(1000)}\n`)

/** All of the body of `/chunked`. */
export const chunked = `first\n${lines.join("")}`

const pieces = function* (bytes: Buffer) {
  for (let at = 0; at < bytes.length; at += 1024 * 1024) yield bytes.subarray(at, at + 1024 * 1024)
}

/** What the answer to an upload says. */
export const digest = (body: Buffer): string => `${body.length} ${createHash("sha256").update(body).digest("hex")}`

const echo = Effect.fnUntraced(function* (socket: EffectSocket.Socket) {
  const { pull } = yield* socket.reader
  const { writeAll } = yield* socket.writer
  return yield* Effect.forever(Effect.flatMap(pull, writeAll))
})
