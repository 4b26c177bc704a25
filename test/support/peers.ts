/**
 * Clients that see everything: what comes over a socket is parsed and counted here, byte by byte, by nobody's agent and
 * nobody's pool. Each kind of peer that a server may have when its drain begins is made of these.
 *
 * Every wait is an effect that completes with an event on the socket, and dies with what the peer had seen so far where
 * that event cannot come any more.
 */
import { Effect, type Scope } from "effect"
import { createHash, type Hash } from "node:crypto"
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  type OutgoingHttpHeaders
} from "node:http2"
import { connect as connectTcp, type Socket } from "node:net"
import { Duplex } from "node:stream"
import { connect as connectTls } from "node:tls"
import WebSocket from "ws"
import { cert } from "./certificate.ts"

/** One response, or as much of it as has come. */
export interface Response {
  readonly status: number
  readonly headers: Record<string, string>
  /** The body, up to its first megabyte. */
  text: string
  /** Bytes of the body. */
  bytes: number
  /** Whether its end was told, and not only that of its connection. */
  whole: boolean
  /** SHA-256 of the body. */
  readonly hash: Hash
}

const emptyLine = Buffer.from("\r\n\r\n")

/** The bytes of one direction of an HTTP/1.1 connection, as responses. */
class Parser {
  readonly responses: Array<Response> = []
  /** What came after a response that turned the connection into something else. */
  raw: Buffer = Buffer.alloc(0)
  private rest: Buffer = Buffer.alloc(0)
  private state: "head" | "length" | "size" | "chunk" | "trailer" | "close" | "raw"
  private left = 0

  constructor(raw: boolean) {
    this.state = raw ? "raw" : "head"
  }

  get current(): Response | undefined {
    return this.responses.at(-1)
  }

  push(chunk: Buffer): void {
    this.rest = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk])
    while (this.step());
  }

  /** Whether there may be more in what is left. */
  private step(): boolean {
    switch (this.state) {
      case "head":
        return this.head()
      case "raw":
        this.raw = Buffer.concat([this.raw, this.rest])
        this.rest = Buffer.alloc(0)
        return false
      case "close":
        this.body(this.rest.length)
        return false
      case "length":
        this.body(this.left)
        if (this.left > 0) return false
        this.current!.whole = true
        this.state = "head"
        return this.rest.length > 0
      case "size": {
        const line = this.line()
        if (line === undefined) return false
        this.left = Number.parseInt(line, 16)
        this.state = this.left === 0 ? "trailer" : "chunk"
        return true
      }
      case "chunk":
        this.body(this.left)
        if (this.left > 0 || this.rest.length < 2) return false
        this.rest = this.rest.subarray(2)
        this.state = "size"
        return true
      case "trailer": {
        const line = this.line()
        if (line === undefined) return false
        if (line !== "") return true
        this.current!.whole = true
        this.state = "head"
        return this.rest.length > 0
      }
    }
  }

  private line(): string | undefined {
    const end = this.rest.indexOf("\r\n")
    if (end < 0) return undefined
    const line = this.rest.toString("latin1", 0, end)
    this.rest = this.rest.subarray(end + 2)
    return line
  }

  private body(length: number): void {
    const part = this.rest.subarray(0, length)
    this.rest = this.rest.subarray(part.length)
    this.left -= part.length
    count(this.current!, part)
  }

  private head(): boolean {
    const end = this.rest.indexOf(emptyLine)
    if (end < 0) return false
    const [first, ...lines] = this.rest.toString("latin1", 0, end).split("\r\n")
    this.rest = this.rest.subarray(end + emptyLine.length)
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(first!)?.[1])
    if (Number.isNaN(status)) throw new Error(`Not the first line of a response: ${first}`)
    const headers: Record<string, string> = {}
    for (const line of lines) {
      const colon = line.indexOf(":")
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim()
    }
    const response = received(status, headers)
    this.responses.push(response)
    if (status === 101 || (status === 200 && headers["x-tunnel"] !== undefined)) {
      response.whole = true
      this.state = "raw"
    } else if (headers["transfer-encoding"] === "chunked") this.state = "size"
    else if (headers["content-length"] !== undefined) {
      this.left = Number(headers["content-length"])
      this.state = "length"
    } else if (status === 204 || status === 304 || status < 200) response.whole = true
    else this.state = "close"
    return true
  }
}

const received = (status: number, headers: Record<string, string>): Response => ({
  status,
  headers,
  text: "",
  bytes: 0,
  whole: false,
  hash: createHash("sha256")
})

const count = (response: Response, part: Buffer): void => {
  if (response.bytes < 1024 * 1024) response.text += part.toString("latin1")
  response.bytes += part.length
  response.hash.update(part)
}

/** Waits for what can be seen when something happens. */
class Watch {
  private readonly looks = new Set<() => void>()

  look(): void {
    for (const look of Array.from(this.looks)) look()
  }

  /** Completes with the first value that `see` gives; dies with what `over` says, if that says something before. */
  until<A>(see: () => A | undefined, over: () => string | undefined = () => undefined): Effect.Effect<A> {
    return Effect.callback<A>((resume) => {
      const look = () => {
        const seen = see()
        if (seen !== undefined) resume(Effect.succeed(seen))
        else {
          const problem = over()
          if (problem === undefined) return
          resume(Effect.die(new Error(problem)))
        }
        this.looks.delete(look)
      }
      this.looks.add(look)
      look()
      return Effect.sync(() => this.looks.delete(look))
    })
  }
}

/** How a connection ended, seen from here. */
export interface Closed {
  /** The server said that nothing more would come, before the end. */
  readonly ended: boolean
  /** The code of the error that ended it, as `ECONNRESET`. */
  readonly error: string | undefined
  readonly at: number
}

export interface ConnectOptions {
  /** Speak TLS. */
  readonly tls?: boolean | undefined
  /** Keep the own half open when the server has ended its. */
  readonly allowHalfOpen?: boolean
  /** Leave what comes as it is: it is not HTTP/1.1. */
  readonly raw?: boolean
}

/** Whatever takes the bytes of a connection that does not speak HTTP/1.1. */
export interface Sink {
  push(chunk: Buffer): void
}

/** A connection that speaks HTTP/1.1, or whatever a test writes to it. */
export class Peer {
  readonly socket: Socket
  private readonly parser: Parser
  private readonly watch = new Watch()
  private taken = 0
  private ended = false
  private error: string | undefined
  private gone: Closed | undefined

  constructor(socket: Socket, raw = false, sink?: Sink) {
    this.socket = socket
    this.parser = new Parser(raw)
    const taker = sink ?? this.parser
    socket.on("data", (chunk: Buffer) => {
      taker.push(chunk)
      this.watch.look()
    })
    socket.on("end", () => {
      this.ended = true
      this.watch.look()
    })
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.error = error.code ?? error.message
    })
    socket.on("close", () => {
      this.gone = { ended: this.ended, error: this.error, at: performance.now() }
      this.watch.look()
    })
  }

  send(bytes: string | Buffer): void {
    this.socket.write(bytes)
  }

  /** A request without a body. */
  get(path: string, headers = ""): void {
    this.send(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`)
  }

  private story(): string | undefined {
    if (this.gone === undefined) return undefined
    const seen = this.parser.responses.map(
      ({ bytes, status, whole }) => `${status} ${bytes} bytes${whole ? "" : ", cut"}`
    )
    return `The connection has gone (${this.error ?? (this.ended ? "ended" : "closed")}). It brought [${seen.join("; ")}]`
  }

  /** Completes with the first value that `see` gives, looking whenever something comes; dies if the connection goes first. */
  until<A>(see: () => A | undefined): Effect.Effect<A> {
    return this.watch.until(see, () => this.story())
  }

  /** The next response, once all of it has come. */
  readonly response: Effect.Effect<Response> = Effect.suspend(() => {
    const index = this.taken++
    return this.until(() => {
      const response = this.parser.responses[index]
      return response?.whole === true ? response : undefined
    })
  })

  /** The head of the response that is on its way. */
  readonly head: Effect.Effect<Response> = Effect.suspend(() => this.until(() => this.parser.responses[this.taken]))

  /** Completes when the body of the response that is on its way has as many bytes. */
  body(bytes: number): Effect.Effect<Response> {
    return this.until(() => {
      const response = this.parser.responses[this.taken]
      return response !== undefined && response.bytes >= bytes ? response : undefined
    })
  }

  /** What came after an upgrade, once there is as much of it. */
  raw(bytes: number): Effect.Effect<Buffer> {
    return this.until(() => (this.parser.raw.length >= bytes ? this.parser.raw : undefined))
  }

  /** Responses that have begun. */
  get responses(): ReadonlyArray<Response> {
    return this.parser.responses
  }

  get isClosed(): boolean {
    return this.gone !== undefined
  }

  readonly closed: Effect.Effect<Closed> = Effect.suspend(() => this.watch.until(() => this.gone))

  /** The server's half has ended. */
  readonly end: Effect.Effect<true> = Effect.suspend(() => this.until(() => (this.ended ? true : undefined)))

  /** Takes a piece of about `piece` bytes, pauses, takes the next one. */
  readSlowly(piece: number, pause: number): void {
    let got = 0
    this.socket.on("data", (chunk: Buffer) => {
      got += chunk.length
      if (got < piece) return
      got = 0
      this.socket.pause()
      setTimeout(() => this.socket.resume(), pause)
    })
    this.socket.resume()
  }
}

const tlsOptions = { ca: cert, servername: "localhost" }

/** Where a listener is. */
export type Address = { readonly host: string; readonly port: number } | { readonly path: string }

export interface DialOptions {
  /** What to speak over TLS; without it the connection is plain. */
  readonly tls?: "h2" | "http/1.1" | undefined
  readonly allowHalfOpen?: boolean | undefined
  /** Send no more of the TLS handshake than so many bytes. */
  readonly hold?: number | undefined
}

/** A connection that nothing has been said on, but what TLS says. */
export interface Line {
  /** What bytes are written to, and come from. */
  readonly socket: Socket
  /** The connection itself: beneath TLS, and otherwise the same. */
  readonly carrier: Socket
  /** Completes when it may be used; sends what was held of the handshake. */
  readonly ready: Effect.Effect<void>
}

/** A connection at the lowest level, so that it can be reset, or held in the middle of its handshake. */
export const dial = (address: Address, options: DialOptions = {}): Effect.Effect<Line, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { allowHalfOpen = false, hold, tls } = options
    const carrier = yield* Effect.acquireRelease(
      Effect.sync(() => connectTcp({ ...address, allowHalfOpen: allowHalfOpen || tls !== undefined })),
      (socket) => Effect.sync(() => socket.destroy())
    )
    yield* once(carrier, "connect")
    if (tls === undefined) return { socket: carrier, carrier, ready: Effect.void }
    carrier.on("error", () => {})
    const held = hold === undefined ? undefined : new Held(carrier, hold)
    const socket = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const socket = connectTls({ socket: held ?? carrier, ...tlsOptions, ALPNProtocols: [tls] })
        socket.allowHalfOpen = allowHalfOpen
        return socket
      }),
      (socket) => Effect.sync(() => socket.destroy())
    )
    // A handshake that fails is told by whoever waits for it.
    socket.on("error", () => {})
    const secured = once(socket, "secureConnect")
    if (held === undefined) yield* secured
    const ready = Effect.suspend(() => {
      held?.release()
      return held === undefined ? Effect.void : secured
    })
    return { socket, carrier, ready }
  })

const once = (socket: Socket, event: "connect" | "secureConnect"): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    socket.once(event, () => resume(Effect.void))
    socket.once("error", (error) => resume(Effect.die(error)))
    socket.once("close", () => resume(Effect.die(new Error(`Closed before ${event}`))))
  })

const adopt = (open: () => Socket, event: "connect" | "secureConnect" | undefined, raw = false) =>
  Effect.acquireRelease(
    Effect.sync(() => new Peer(open(), raw)),
    ({ socket }) => Effect.sync(() => socket.destroy())
  ).pipe(
    Effect.tap(({ socket }) =>
      event === undefined
        ? Effect.void
        : Effect.callback<void>((resume) => {
            socket.once(event, () => resume(Effect.void))
            socket.once("error", (error) => resume(Effect.die(error)))
          })
    )
  )

/** A connection, with its handshake done. */
export const connect = (port: number, options: ConnectOptions = {}): Effect.Effect<Peer, never, Scope.Scope> => {
  const { allowHalfOpen = false, raw = false, tls = false } = options
  const address = { host: "127.0.0.1", port, allowHalfOpen }
  return tls
    ? adopt(() => connectTls({ ...address, ...tlsOptions, ALPNProtocols: ["http/1.1"] }), "secureConnect", raw)
    : adopt(() => connectTcp(address), "connect", raw)
}

/** Whether a new connection is refused. */
export const isRefused = (port: number): Effect.Effect<boolean> =>
  Effect.map(refusal({ host: "127.0.0.1", port }), (code) => code === "ECONNREFUSED")

/** The code with which a new connection is refused, if it is. */
export const refusal = (address: Address): Effect.Effect<string | undefined> =>
  Effect.callback<string | undefined>((resume) => {
    const socket = connectTcp(address)
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.undefined)
    })
    socket.once("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code)))
  })

/** Carries bytes to a socket, and keeps back what comes after the first `limit`. */
class Held extends Duplex {
  private readonly socket: Socket
  private left: number
  private kept: Array<() => void> = []

  constructor(socket: Socket, limit: number) {
    super()
    this.socket = socket
    this.left = limit
    socket.on("data", (chunk) => this.push(chunk))
    socket.on("end", () => this.push(null))
    socket.on("error", (error) => this.destroy(error))
    socket.on("close", () => this.destroy())
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    const now = chunk.subarray(0, this.left)
    const later = chunk.subarray(now.length)
    this.left -= now.length
    if (now.length > 0) this.socket.write(now)
    if (later.length === 0) return done()
    this.kept.push(() => this.socket.write(later, done))
  }

  override _final(done: () => void): void {
    this.socket.end(done)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.socket.destroy()
    done(error)
  }

  release(): void {
    this.left = Number.POSITIVE_INFINITY
    for (const write of this.kept.splice(0)) write()
  }
}

export interface HalfHandshake {
  readonly peer: Peer
  /** Sends the rest, and completes when the handshake is done. */
  readonly proceed: Effect.Effect<void>
}

/** A TLS connection that has sent the first `limit` bytes of its handshake, and nothing more. */
export const halfHandshake = (port: number, limit: number): Effect.Effect<HalfHandshake, never, Scope.Scope> =>
  Effect.gen(function* () {
    const carrier = yield* Effect.acquireRelease(
      Effect.sync(() => connectTcp({ host: "127.0.0.1", port })),
      (socket) => Effect.sync(() => socket.destroy())
    )
    yield* Effect.callback<void>((resume) => void carrier.once("connect", () => resume(Effect.void)))
    const held = new Held(carrier, limit)
    const peer = yield* adopt(() => connectTls({ socket: held, ...tlsOptions, ALPNProtocols: ["http/1.1"] }), undefined)
    return {
      peer,
      proceed: Effect.callback<void>((resume) => {
        peer.socket.once("secureConnect", () => resume(Effect.void))
        held.release()
      })
    }
  })

/** A connection that has sent a request with half of its body. */
export const upload = (port: number, path: string, body: Buffer, options: ConnectOptions = {}) =>
  Effect.gen(function* () {
    const peer = yield* connect(port, options)
    const half = Math.floor(body.length / 2)
    peer.send(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n`)
    peer.send(body.subarray(0, half))
    return { peer, rest: () => peer.send(body.subarray(half)) }
  })

/** A connection that asked for another protocol, and has it. */
export const upgrade = (port: number, path: string, protocol: string, options: ConnectOptions = {}) =>
  Effect.gen(function* () {
    const peer = yield* connect(port, options)
    peer.get(path, `Connection: Upgrade\r\nUpgrade: ${protocol}\r\n`)
    const response = yield* peer.response
    if (response.status !== 101) return yield* Effect.die(new Error(`Upgrade answered with ${response.status}`))
    return peer
  })

/** What a client says that asks for a WebSocket. */
export const webSocketHead =
  "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"

/** A WebSocket that never answers a close, nor anything else. What it was sent is in `raw`. */
export const deafWebSocket = (port: number, path: string, options: ConnectOptions = {}) =>
  Effect.gen(function* () {
    const peer = yield* connect(port, { allowHalfOpen: true, ...options })
    peer.get(path, webSocketHead)
    const response = yield* peer.response
    if (response.status !== 101) return yield* Effect.die(new Error(`Upgrade answered with ${response.status}`))
    return peer
  })

/** A tunnel, by CONNECT. The server marks its answer with `x-tunnel`. */
export const tunnel = (port: number, options: ConnectOptions = {}) =>
  Effect.gen(function* () {
    const peer = yield* connect(port, options)
    peer.send("CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n")
    const response = yield* peer.response
    if (response.status !== 200) return yield* Effect.die(new Error(`CONNECT answered with ${response.status}`))
    return peer
  })

/** A WebSocket that behaves. */
export interface WebSocketPeer {
  readonly send: (message: string) => void
  /** The next message. */
  readonly message: Effect.Effect<string>
  readonly closed: Effect.Effect<{ readonly code: number; readonly at: number }>
  readonly isClosed: () => boolean
}

export const webSocket = (
  port: number,
  path: string,
  options: ConnectOptions = {}
): Effect.Effect<WebSocketPeer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const watch = new Watch()
    const messages: Array<string> = []
    let closed: { code: number; at: number } | undefined
    const scheme = options.tls === true ? "wss" : "ws"
    const socket = yield* Effect.acquireRelease(
      Effect.sync(() => new WebSocket(`${scheme}://127.0.0.1:${port}${path}`, options.tls === true ? tlsOptions : {})),
      (socket) => Effect.sync(() => socket.terminate())
    )
    socket.on("message", (data: Buffer) => {
      messages.push(data.toString())
      watch.look()
    })
    socket.on("close", (code) => {
      closed = { code, at: performance.now() }
      watch.look()
    })
    yield* Effect.callback<void>((resume) => {
      socket.once("open", () => resume(Effect.void))
      socket.on("error", (error) => resume(Effect.die(error)))
    })
    return {
      send: (message) => socket.send(message),
      message: watch.until(
        () => messages.shift(),
        () => (closed === undefined ? undefined : `The WebSocket closed with ${closed.code}`)
      ),
      closed: watch.until(() => closed),
      isClosed: () => closed !== undefined
    }
  })

/** How one stream of an HTTP/2 session ended, or is. */
export interface StreamPeer {
  readonly stream: ClientHttp2Stream
  /** Status and body, once all of it has come. Dies if the stream ends otherwise. */
  readonly response: Effect.Effect<Response>
  readonly head: Effect.Effect<Response>
  readonly body: (bytes: number) => Effect.Effect<Response>
  /** How it ended: with a response, or refused in a way that lets a client repeat it. */
  readonly outcome: Effect.Effect<"answered" | "refused" | `failed: ${string}`>
}

/** An HTTP/2 session. */
export class SessionPeer {
  readonly session: ClientHttp2Session
  goaways: Array<{ readonly code: number; readonly last: number }> = []
  private readonly watch = new Watch()
  private gone: Closed | undefined
  private error: string | undefined

  constructor(session: ClientHttp2Session) {
    this.session = session
    session.on("goaway", (code, last) => {
      this.goaways.push({ code, last })
      this.watch.look()
    })
    session.on("error", (error: NodeJS.ErrnoException) => {
      this.error = error.code ?? error.message
    })
    session.on("close", () => {
      this.gone = { ended: this.error === undefined, error: this.error, at: performance.now() }
      this.watch.look()
    })
  }

  readonly goaway: Effect.Effect<{ readonly code: number; readonly last: number }> = Effect.suspend(() =>
    this.watch.until(
      () => this.goaways[0],
      () => (this.gone === undefined ? undefined : "The session closed without GOAWAY")
    )
  )

  readonly closed: Effect.Effect<Closed> = Effect.suspend(() => this.watch.until(() => this.gone))

  get isClosed(): boolean {
    return this.gone !== undefined
  }

  /** How a request ends that is made when the session may take no more: Node 22 throws there. */
  ask(path: string): StreamPeer["outcome"] {
    return Effect.suspend(() => {
      try {
        return this.request(path).outcome
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        return Effect.succeed(code === "ERR_HTTP2_GOAWAY_SESSION" ? "refused" : (`failed: ${code}` as const))
      }
    })
  }

  request(path: string, headers: OutgoingHttpHeaders = {}, options = { endStream: true }): StreamPeer {
    const stream = this.session.request({ ":path": path, ...headers }, options)
    const watch = new Watch()
    let response: Response | undefined
    let error: NodeJS.ErrnoException | undefined
    let closed = false
    // Through a stream that is none of Node's own, as that of a held handshake is, a body may come before its head.
    const early: Array<Buffer> = []
    stream.on("response", (headers) => {
      response = received(Number(headers[":status"]), headers as Record<string, string>)
      for (const chunk of early) count(response, chunk)
      watch.look()
    })
    stream.on("data", (chunk: Buffer) => {
      if (response === undefined) early.push(chunk)
      else count(response, chunk)
      watch.look()
    })
    stream.on("end", () => {
      if (response !== undefined && stream.rstCode === 0) response.whole = true
      watch.look()
    })
    stream.on("error", (cause: NodeJS.ErrnoException) => {
      error = cause
    })
    stream.on("close", () => {
      closed = true
      watch.look()
    })
    const story = () => (closed ? `The stream closed with ${stream.rstCode} ${error?.message ?? ""}` : undefined)
    const whole = () => (response?.whole === true ? response : undefined)
    return {
      stream,
      response: watch.until(whole, story),
      head: watch.until(() => response, story),
      body: (bytes) =>
        watch.until(() => (response !== undefined && response.bytes >= bytes ? response : undefined), story),
      outcome: watch.until(() => {
        if (whole() !== undefined) return "answered" as const
        if (!closed) return undefined
        // REFUSED_STREAM, and what this client calls a stream above the last one of a GOAWAY.
        const refused = stream.rstCode === 7 || error?.code === "ERR_HTTP2_GOAWAY_SESSION"
        return response === undefined && refused
          ? ("refused" as const)
          : (`failed: ${stream.rstCode} ${error?.code}` as const)
      })
    }
  }
}

/** An HTTP/2 session that has spoken its preface and heard the server's. */
export const session = (port: number, options: ConnectOptions = {}): Effect.Effect<SessionPeer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const url = `${options.tls === true ? "https" : "http"}://127.0.0.1:${port}`
    const peer = yield* Effect.acquireRelease(
      Effect.sync(() => new SessionPeer(connectHttp2(url, options.tls === true ? tlsOptions : {}))),
      ({ session }) => Effect.sync(() => session.destroy())
    )
    yield* Effect.callback<void>((resume) => {
      peer.session.once("remoteSettings", () => resume(Effect.void))
      peer.session.once("close", () => resume(Effect.die(new Error("No HTTP/2 session"))))
    })
    return peer
  })

/** The frames of HTTP/2 as a client writes and reads them by hand (RFC 9113 section 4.1). */
export const frames = {
  preface: Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  make: (type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer => {
    const head = Buffer.alloc(9)
    head.writeUIntBE(payload.length, 0, 3)
    head.writeUInt8(type, 3)
    head.writeUInt8(flags, 4)
    head.writeUInt32BE(stream, 5)
    return Buffer.concat([head, payload])
  },
  /** The head of a GET, without Huffman coding or a dynamic table (RFC 7541). */
  get: (stream: number, path: string): Buffer => {
    const literal = (index: number, text: string) => Buffer.from([index, text.length, ...Buffer.from(text)])
    // Static table: 2 is `:method GET`, 6 `:scheme http`; 4 and 1 are the names `:path` and `:authority`.
    const block = Buffer.concat([Buffer.from([0x82, 0x86]), literal(0x04, path), literal(0x01, "localhost")])
    return frames.make(0x1, 0x5, stream, block)
  },
  /** What has been read, frame by frame. */
  parse: (bytes: Buffer): Array<{ type: number; flags: number; stream: number; payload: Buffer }> => {
    const list = []
    let rest = bytes
    while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
      const length = rest.readUIntBE(0, 3)
      const payload = rest.subarray(9, 9 + length)
      list.push({ type: rest.readUInt8(3), flags: rest.readUInt8(4), stream: rest.readUInt32BE(5), payload })
      rest = rest.subarray(9 + length)
    }
    return list
  }
}
