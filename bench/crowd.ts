/**
 * A process of many clients that do what can be in flight when a server is stopped:
 *
 * - `idle`: a keep-alive connection each, with one request that has been answered
 * - `slow`: a request of two seconds each, on a connection that its client would keep; with `leaves` it ends the
 *   connection itself, right after its answer
 * - `socket`: a WebSocket each, that answers a close with a close
 * - `session`: an HTTP/2 session each, with one stream that has been answered
 * - `stream`: an HTTP/2 session each, with one stream of two seconds
 *
 * All of them leave when they are told to: by `Connection: close`, GOAWAY or the end of the connection. Prints `ready` once
 * everything that can be answered has been, and `ended` with the time (see `clock.ts`) of the last answer, or of the last
 * close frame, once all have come or can come no more.
 */
import { connect as connectHttp2 } from "node:http2"
import { connect, type Socket } from "node:net"
import { Responses } from "../test/support/responses.ts"
import { clock } from "./clock.ts"

export interface Crowd {
  readonly port: number
  readonly what: "idle" | "slow" | "socket" | "session" | "stream"
  readonly count: number
  readonly leaves?: boolean
}

/** How it ended for them. */
export interface Ending {
  /** When the last of them had its answer or its close frame. */
  readonly at: number
  /** How many answers said `Connection: close`, or with which code WebSockets were closed. */
  readonly told: Record<string, number>
}

const { count, leaves = false, port, what } = JSON.parse(process.argv[2]!) as Crowd

let ready = 0
let ended = 0
const told: Record<string, number> = {}

const isReady = (): void => {
  ready++
  if (ready === count) console.log("ready")
  if (opened < count) open()
}

let at = 0

const hasEnded = (how: string): void => {
  ended++
  at = clock()
  told[how] = (told[how] ?? 0) + 1
  if (ended === count) tell()
}

const tell = (): void => console.log(`ended ${JSON.stringify({ at, told } satisfies Ending)}`)

// Nothing is open any more, and some were never answered.
process.on("exit", () => {
  if (ended === count) return
  if (ended === 0) at = clock()
  told["without an answer"] = count - ended
  tell()
})

const tcp = (onData: (chunk: Buffer, socket: Socket) => void): Socket => {
  const socket = connect({ port, host: "127.0.0.1" })
  socket.on("data", (chunk) => onData(chunk as Buffer, socket))
  // A reset is an end, too.
  socket.on("error", () => {})
  return socket
}

const idle = (): void => {
  const socket = tcp(() => isReady())
  socket.write("GET /quick HTTP/1.1\r\nHost: local\r\n\r\n")
}

const slow = (): void => {
  const responses = new Responses()
  const socket = tcp((chunk, socket) => {
    for (const { close } of responses.push(chunk.toString("latin1"))) {
      hasEnded(close ? "close" : "keep-alive")
      if (close || leaves) socket.end()
    }
  })
  socket.write("GET /slow HTTP/1.1\r\nHost: local\r\n\r\n", isReady)
}

const handshake = [
  "GET /socket HTTP/1.1",
  "Host: local",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "\r\n"
].join("\r\n")

const webSocket = (): void => {
  let isOpen = false
  let isOver = false
  const over = (how: string) => {
    if (isOver) return
    isOver = true
    hasEnded(how)
  }
  const socket = tcp((chunk, socket) => {
    if (!isOpen) {
      isOpen = true
      return isReady()
    }
    // A close frame with a code and no more, which is all that a server says here.
    if (chunk[0] !== 0x88 || chunk.length < 4) return over(`? ${chunk.toString("hex").slice(0, 20)}`)
    over(`${chunk.readUInt16BE(2)}`)
    socket.write(Buffer.from([0x88, 0x82, 0, 0, 0, 0, chunk[2]!, chunk[3]!]))
  })
  socket.on("close", () => over("1006"))
  socket.write(handshake)
}

const session = (path: string): void => {
  const session = connectHttp2(`http://127.0.0.1:${port}`)
  session.on("error", () => {})
  const stream = session.request({ ":path": path })
  stream.on("error", () => {})
  stream.resume()
  if (path === "/slow") {
    session.once("connect", isReady)
    stream.on("end", () => hasEnded("answered"))
  } else stream.on("end", isReady)
}

const clients: Record<Crowd["what"], () => void> = {
  idle,
  slow,
  socket: webSocket,
  session: () => session("/quick"),
  stream: () => session("/slow")
}

let opened = 0
const open = (): void => {
  opened++
  clients[what]()
}

// Not all of them at once: what does not fit into the queue of the listener would be tried again a second later.
for (let left = Math.min(count, 200); left > 0; left--) open()
