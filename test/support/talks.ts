/**
 * Peers that ask for work and get answers, in the protocol of each kind of listener: lines, messages on a WebSocket, calls
 * of an RPC client, requests over HTTP. What is written and read is spelled out here, byte by byte, so that each of them
 * can misbehave in the same ways.
 */
import { Effect } from "effect"
import { createHash, type Hash } from "node:crypto"
import { connect as connectHttp2 } from "node:http2"
import type { Socket } from "node:net"
import {
  type Closed,
  frames,
  type Line,
  Peer,
  type Response,
  SessionPeer,
  type Sink,
  type StreamPeer
} from "./peers.ts"
import type { Work } from "./work.ts"

export interface Answer {
  /** The first of it. */
  readonly text: string
  readonly bytes: number
  readonly hash: string
}

/** One connection to a listener, handshakes done, as its peer has it. */
export interface Talk {
  readonly ask: (work: Work) => void
  /** Sends half of a question. Returns what sends the other half. */
  readonly askHalf: (work: Work) => () => void
  /** The next answer, once all of it has come. */
  readonly answer: Effect.Effect<Answer>
  /** Completes when something has come since the last question. */
  readonly some: Effect.Effect<void>
  /** What it was told beside the answers, in the words of its protocol. */
  readonly told: () => ReadonlyArray<string>
  /** Takes nothing any more. */
  readonly pause: () => void
  readonly readSlowly: () => void
  /** Asks for work, and sends without a pause from then on, until the end. */
  readonly flood: (work: Work) => void
  /** Sends a megabyte that asks for nothing. */
  readonly babble: () => void
  /** Has nothing more to say, but may still listen. */
  readonly end: () => void
  /** Resets its connection. Over a Unix socket there is no such thing. */
  readonly reset: () => void
  /** Closes its connection. */
  readonly close: () => void
  /** Completes when nothing more comes; dies if the connection was reset before. */
  readonly ended: Effect.Effect<unknown>
  readonly closed: Effect.Effect<Closed>
  readonly isClosed: () => boolean
}

/** A protocol over a plain connection. */
interface Codec extends Sink {
  readonly answers: ReadonlyArray<Answer>
  readonly told: ReadonlyArray<string>
  readonly question: (work: Work) => Buffer
  /** Something to flood with. */
  readonly noise: () => Buffer
  /** Whether it is a call, with whose answer the next one is made: no client has any number of them in flight. */
  readonly loops: boolean
  /** Sends something back. */
  reply: (bytes: Buffer) => void
}

class Tally {
  private readonly hash: Hash = createHash("sha256")
  private text = ""
  private bytes = 0

  add(part: Buffer): this {
    if (this.bytes < 1024) this.text += part.toString("latin1", 0, 1024)
    this.bytes += part.length
    this.hash.update(part)
    return this
  }

  get done(): Answer {
    return { text: this.text, bytes: this.bytes, hash: this.hash.digest("hex") }
  }
}

const whole = (bytes: Buffer): Answer => new Tally().add(bytes).done

/** A goodbye is no answer. */
const tell = (answer: Answer, codec: { readonly answers: Array<Answer>; readonly told: Array<string> }): void =>
  void (answer.text === "bye" ? codec.told.push("bye") : codec.answers.push(answer))

/** Lines of questions; each answer has its length before it, on a line. */
class Lines implements Codec {
  readonly answers: Array<Answer> = []
  readonly told: Array<string> = []
  readonly loops = false
  reply = () => {}
  private head = ""
  private left = 0
  private tally: Tally | undefined

  push(chunk: Buffer): void {
    let rest = chunk
    while (rest.length > 0) {
      if (this.tally === undefined) {
        const end = rest.indexOf(10)
        this.head += rest.toString("latin1", 0, end < 0 ? rest.length : end)
        if (end < 0) return
        rest = rest.subarray(end + 1)
        this.left = Number(this.head)
        if (!Number.isInteger(this.left)) throw new Error(`Not the length of an answer: ${this.head}`)
        this.head = ""
        this.tally = new Tally()
      }
      const part = rest.subarray(0, this.left)
      rest = rest.subarray(part.length)
      this.left -= part.length
      this.tally.add(part)
      if (this.left > 0) return
      tell(this.tally.done, this)
      this.tally = undefined
    }
  }

  question(work: Work): Buffer {
    return Buffer.from(`${work}\n`)
  }
  noise(): Buffer {
    return noise
  }
}

/** A line that is no question. */
const noise = Buffer.from(`#${"x".repeat(16_000)}\n`)

/** Messages that are answers as they are. */
class Messages implements Codec {
  readonly answers: Array<Answer> = []
  readonly told: Array<string> = []
  readonly loops = false
  reply = () => {}

  push(message: Buffer): void {
    tell(whole(message), this)
  }
  question(work: Work): Buffer {
    return Buffer.from(`${work}\n`)
  }
  noise(): Buffer {
    return noise
  }
}

/** The frames of an `RpcClient` with `RpcSerialization.ndjson`. */
class Calls implements Codec {
  readonly answers: Array<Answer> = []
  readonly told: Array<string> = []
  readonly loops = true
  reply: (bytes: Buffer) => void = () => {}
  private made = 0
  private parts: Array<Buffer> = []
  private readonly noises = new Set<string>()

  push(chunk: Buffer): void {
    let rest = chunk
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      this.line(Buffer.concat([...this.parts, rest.subarray(0, end)]).toString())
      this.parts = []
      rest = rest.subarray(end + 1)
    }
    this.parts.push(rest)
  }

  private line(line: string): void {
    const { _tag, exit, requestId } = JSON.parse(line) as {
      readonly _tag: string
      readonly requestId: string
      readonly exit: { readonly _tag: string; readonly value: string }
    }
    if (_tag !== "Exit") throw new Error(`Not an answer: ${line.slice(0, 200)}`)
    if (this.noises.delete(requestId)) this.reply(this.noise())
    else if (exit._tag === "Success") this.answers.push(whole(Buffer.from(exit.value)))
    else this.told.push(JSON.stringify(exit))
  }

  question(work: Work): Buffer {
    return call(String(this.made++), work)
  }

  noise(): Buffer {
    const id = String(this.made++)
    this.noises.add(id)
    return call(id, "ping")
  }
}

const call = (id: string, work: Work): Buffer =>
  Buffer.from(`${JSON.stringify({ _tag: "Request", id, tag: "Work", payload: { work }, headers: [] })}\n`)

/** Another codec in the frames of a WebSocket (RFC 6455 section 5.2). Those of the server are not masked. */
class Frames implements Codec {
  readonly loops: boolean
  private readonly inner: Codec
  private readonly deaf: boolean
  private readonly codes: Array<string> = []
  private reply_: (bytes: Buffer) => void = () => {}
  private parts: Array<Buffer> = []
  private length = 0
  /** As many bytes as are worth to look at. */
  private needed = 2

  constructor(inner: Codec, deaf: boolean) {
    this.inner = inner
    this.deaf = deaf
    this.loops = inner.loops
    inner.reply = (bytes) => this.reply(frame(bytes))
  }

  get answers(): ReadonlyArray<Answer> {
    return this.inner.answers
  }
  get told(): ReadonlyArray<string> {
    return [...this.inner.told, ...this.codes]
  }
  get reply(): (bytes: Buffer) => void {
    return this.reply_
  }
  set reply(reply: (bytes: Buffer) => void) {
    this.reply_ = reply
  }

  push(chunk: Buffer): void {
    this.parts.push(chunk)
    this.length += chunk.length
    if (this.length < this.needed) return
    let bytes = Buffer.concat(this.parts)
    for (;;) {
      const { head, payload } = measure(bytes)
      this.needed = head + payload
      if (bytes.length < this.needed) break
      this.message(bytes.readUInt8(0) & 0x0f, bytes.subarray(head, this.needed))
      bytes = bytes.subarray(this.needed)
    }
    this.parts = [bytes]
    this.length = bytes.length
  }

  private message(opcode: number, payload: Buffer): void {
    if (opcode !== 8) return this.inner.push(payload)
    this.codes.push(payload.length < 2 ? "closed without a code" : String(payload.readUInt16BE(0)))
    if (!this.deaf) this.reply(frame(payload, 8))
  }

  question(work: Work): Buffer {
    return frame(this.inner.question(work))
  }
  noise(): Buffer {
    return frame(this.inner.noise())
  }
}

/** The lengths of the head and the payload that a frame has, as far as its first bytes tell. */
const measure = (bytes: Buffer): { readonly head: number; readonly payload: number } => {
  if (bytes.length < 2) return { head: 2, payload: 0 }
  const length = bytes.readUInt8(1)
  const head = length === 127 ? 10 : length === 126 ? 4 : 2
  if (bytes.length < head) return { head, payload: 0 }
  const payload = head === 10 ? Number(bytes.readBigUInt64BE(2)) : head === 4 ? bytes.readUInt16BE(2) : length
  return { head, payload }
}

/** A frame of a client: a text, if nothing else is said. With a mask of zeros it can be read. */
const frame = (payload: Buffer, opcode = 1): Buffer => {
  const isShort = payload.length < 126
  const head = Buffer.alloc(isShort ? 6 : 8)
  head.writeUInt8(0x80 | opcode, 0)
  head.writeUInt8(0x80 | (isShort ? payload.length : 126), 1)
  if (!isShort) head.writeUInt16BE(payload.length, 2)
  return Buffer.concat([head, payload])
}

/** Resets a connection. `resetAndDestroy` of Node would send a FIN before, and its server take that for the whole story. */
export const reset = (socket: Socket): void => void Object.assign(socket, { resetAndClosing: true }).destroy()

/** Anything that is spoken over a socket. */
abstract class SocketTalk implements Talk {
  protected readonly peer: Peer
  protected readonly line: Line
  private mark = 0

  constructor(line: Line, sink?: Sink) {
    this.line = line
    this.peer = new Peer(line.socket, false, sink)
  }

  protected abstract question(work: Work): Buffer
  abstract readonly answer: Effect.Effect<Answer>
  abstract told(): ReadonlyArray<string>
  abstract flood(work: Work): void
  abstract babble(): void

  ask(work: Work): void {
    this.mark = this.line.socket.bytesRead
    this.peer.send(this.question(work))
  }

  askHalf(work: Work): () => void {
    this.mark = this.line.socket.bytesRead
    const question = this.question(work)
    const half = Math.floor(question.length / 2)
    this.peer.send(question.subarray(0, half))
    return () => this.peer.send(question.subarray(half))
  }

  readonly some = Effect.suspend(() =>
    Effect.asVoid(this.peer.until(() => (this.line.socket.bytesRead > this.mark ? true : undefined)))
  )

  pause(): void {
    this.line.socket.pause()
  }
  readSlowly(): void {
    this.peer.readSlowly(256 * 1024, 10)
  }
  end(): void {
    this.line.socket.end()
  }
  reset(): void {
    reset(this.line.carrier)
  }
  close(): void {
    this.line.carrier.destroy()
  }
  get ended(): Effect.Effect<unknown> {
    return this.peer.end
  }
  get closed(): Effect.Effect<Closed> {
    return this.peer.closed
  }
  isClosed(): boolean {
    return this.peer.isClosed
  }

  /** Sends what `make` gives again and again: a piece a turn, so that others have theirs, and as fast as it is taken. */
  protected pour(make: () => Buffer): void {
    const { socket } = this.line
    const more = (): void => {
      if (!socket.writable) return
      if (socket.write(make())) setImmediate(more)
      else socket.once("drain", more)
    }
    more()
  }
}

class CodecTalk extends SocketTalk {
  private readonly codec: Codec
  private taken = 0

  constructor(line: Line, codec: Codec, sink: Sink = codec) {
    super(line, sink)
    this.codec = codec
    codec.reply = (bytes) => {
      if (line.socket.writable) line.socket.write(bytes)
    }
  }

  protected question(work: Work): Buffer {
    return this.codec.question(work)
  }

  readonly answer = Effect.suspend(() => {
    const index = this.taken++
    return this.peer.until(() => this.codec.answers[index])
  })

  told(): ReadonlyArray<string> {
    return this.codec.told
  }

  flood(work: Work): void {
    this.ask(work)
    if (!this.codec.loops) return this.pour(() => this.codec.noise())
    for (let calls = 0; calls < 4; calls++) this.peer.send(this.codec.noise())
  }

  babble(): void {
    for (let pieces = 0; pieces < 64; pieces++) this.peer.send(this.codec.noise())
  }
}

/** The answer to an upgrade or a CONNECT, and then something else. */
class Upgraded extends CodecTalk {
  /** Completes when there is an answer. One that refuses is all that it is told. */
  readonly answered: Effect.Effect<void>
  private readonly refusal: () => string | undefined

  constructor(line: Line, codec: Codec) {
    let rest: Buffer | undefined = Buffer.alloc(0)
    let refusal: string | undefined
    const push = (chunk: Buffer) => {
      if (rest === undefined) return refusal === undefined ? codec.push(chunk) : undefined
      const bytes = Buffer.concat([rest, chunk])
      const end = bytes.indexOf("\r\n\r\n")
      rest = end < 0 ? bytes : undefined
      if (end < 0) return
      const status = bytes.toString("latin1", 9, 12)
      if (status !== "101" && status !== "200") refusal = status
      else if (bytes.length > end + 4) codec.push(bytes.subarray(end + 4))
    }
    super(line, codec, { push })
    this.refusal = () => refusal
    this.answered = Effect.asVoid(this.peer.until(() => (rest === undefined ? true : undefined)))
  }

  override told(): ReadonlyArray<string> {
    const refusal = this.refusal()
    return refusal === undefined ? super.told() : [refusal]
  }
}

/** What a response brought; of one that went wrong, its status. */
const content = ({ bytes, hash, status, text }: Response): Answer => ({
  text: status === 200 ? text : `${status} ${text}`,
  bytes,
  hash: hash.digest("hex")
})

const request = (work: Work): string => `GET /${work} HTTP/1.1\r\nHost: localhost\r\n\r\n`

/** HTTP/1.1. */
class HttpTalk extends SocketTalk {
  protected question(work: Work): Buffer {
    return Buffer.from(request(work))
  }

  readonly answer = Effect.suspend(() => Effect.map(this.peer.response, content))

  told(): ReadonlyArray<string> {
    return this.peer.responses.at(-1)?.headers["connection"] === "close" ? ["Connection: close"] : []
  }

  /** An upload that never ends. */
  flood(work: Work): void {
    this.peer.send(`POST /${work} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n`)
    const chunk = Buffer.from(`4000\r\n${"x".repeat(0x4000)}\r\n`)
    this.pour(() => chunk)
  }

  babble(): void {
    throw new Error("Everything over HTTP asks for something")
  }
}

/** HTTP/2. */
class SessionTalk implements Talk {
  private readonly peer: SessionPeer
  private readonly line: Line
  private readonly streams: Array<StreamPeer> = []
  private taken = 0

  constructor(line: Line) {
    this.line = line
    const session = connectHttp2("https://localhost", { createConnection: () => line.socket })
    this.peer = new SessionPeer(session)
  }

  /** Completes when it has heard the preface of the server. */
  readonly opened = Effect.suspend(() => {
    const { session } = this.peer
    return Effect.callback<void>((resume) => {
      session.once("remoteSettings", () => resume(Effect.void))
      session.once("close", () => resume(Effect.die(new Error("No HTTP/2 session"))))
    })
  })

  ask(work: Work): void {
    this.streams.push(this.peer.request(`/${work}`))
  }

  askHalf(): () => void {
    throw new Error("A session has its own way with what is half sent")
  }

  readonly answer = Effect.suspend(() => {
    const stream = this.streams[this.taken++]!
    return Effect.map(stream.response, content)
  })

  readonly some = Effect.suspend(() => Effect.asVoid(this.streams.at(-1)!.body(1)))

  told(): ReadonlyArray<string> {
    // The closing of a session says it once more.
    return this.peer.goaways.slice(0, 1).map(({ code }) => `GOAWAY ${code}`)
  }

  pause(): void {
    this.streams.at(-1)!.stream.pause()
  }

  readSlowly(): void {
    const { stream } = this.streams.at(-1)!
    let got = 0
    stream.on("data", (chunk: Buffer) => {
      got += chunk.length
      if (got < 256 * 1024) return
      got = 0
      stream.pause()
      setTimeout(() => stream.resume(), 10)
    })
    stream.resume()
  }

  flood(work: Work): void {
    const asked = this.peer.request(`/${work}`, { ":method": "POST" }, { endStream: false })
    this.streams.push(asked)
    const piece = Buffer.alloc(16_000, "x")
    const more = (): void => {
      if (!asked.stream.writable) return
      if (asked.stream.write(piece)) setImmediate(more)
      else asked.stream.once("drain", more)
    }
    more()
  }

  babble(): void {
    throw new Error("Everything over HTTP asks for something")
  }

  end(): void {
    this.line.socket.end()
  }
  reset(): void {
    reset(this.line.carrier)
  }
  close(): void {
    this.line.carrier.destroy()
  }
  get ended(): Effect.Effect<unknown> {
    return this.peer.goaway
  }
  get closed(): Effect.Effect<Closed> {
    return this.peer.closed
  }
  isClosed(): boolean {
    return this.peer.isClosed
  }
}

export interface Manner {
  /** Never answers that the other side closes, where an answer is due. */
  readonly deaf?: boolean
}

/** How a kind of listener is spoken with, the transport being ready. */
export interface Speech {
  /** The head of the request that turns the connection into something else, where there is one. */
  readonly head: string
  /** Says what comes first, and hears the answer to it. */
  readonly open: (line: Line, manner?: Manner) => Effect.Effect<Talk>
  /** All that is to be sent for an answer to `ping`, in one go. */
  readonly ping: Buffer
}

const plain = (make: (line: Line) => Talk, ping: Buffer | string): Speech => ({
  head: "",
  open: (line) => Effect.sync(() => make(line)),
  ping: Buffer.from(ping)
})

const upgraded = (head: string, codec: (deaf: boolean) => Codec): Speech => ({
  head,
  open: (line, { deaf = false } = {}) =>
    Effect.gen(function* () {
      const talk = new Upgraded(line, codec(deaf))
      line.socket.write(head)
      yield* talk.answered
      return talk
    }),
  ping: Buffer.concat([Buffer.from(head), codec(false).question("ping")])
})

const asking = (path: string, protocol: string, more = ""): string =>
  `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n${more}\r\n`

const webSocketHead = asking(
  "/ws",
  "websocket",
  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)

export const http = plain((line) => new HttpTalk(line), request("ping"))
export const lines = plain((line) => new CodecTalk(line, new Lines()), "ping\n")
export const calls = plain((line) => new CodecTalk(line, new Calls()), call("0", "ping"))
export const raw = upgraded(asking("/raw", "lines"), () => new Lines())
export const tunnel = upgraded("CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n", () => new Lines())
export const webSocket = upgraded(webSocketHead, (deaf) => new Frames(new Messages(), deaf))
export const webSocketCalls = upgraded(webSocketHead, (deaf) => new Frames(new Calls(), deaf))
export const session: Speech = {
  head: "",
  open: (line) =>
    Effect.gen(function* () {
      const talk = new SessionTalk(line)
      yield* talk.opened
      return talk
    }),
  ping: Buffer.concat([frames.preface, frames.make(4, 0, 0), frames.get(1, "/ping")])
}
