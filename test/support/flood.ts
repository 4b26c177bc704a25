/**
 * A worker that opens many connections at once and sends a request on each, while the thread that serves them stands
 * still: what it has sent by then waits in the kernel, in the accept queue of the listening socket.
 */
import { connect as connectTcp, type Socket } from "node:net"
import { connect as connectTls } from "node:tls"
import { parentPort, workerData } from "node:worker_threads"
import { cert } from "./certificate.ts"

export interface Input {
  readonly port: number
  readonly tls: boolean
  readonly count: number
  /** Its first element is set, and told, once every connection stands. */
  readonly gate: SharedArrayBuffer
}

export interface Output {
  /** Connections that brought one whole response with the right body. */
  readonly answered: number
  /** What became of the others. */
  readonly problems: ReadonlyArray<string>
}

const { count, gate, port, tls } = workerData as Input
const standing = new Int32Array(gate)
const problems: Array<string> = []
let connected = 0
let closed = 0
let answered = 0

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is not a window
const say = (message: unknown) => parentPort!.postMessage(message)

const onConnect = () => {
  connected++
  if (connected < count) return
  Atomics.store(standing, 0, 1)
  Atomics.notify(standing, 0)
}

const open = (): void => {
  let text = ""
  let problem = "closed without a response"
  const address = { host: "127.0.0.1", port }
  const socket: Socket = tls
    ? connectTls({ ...address, ca: cert, servername: "localhost", ALPNProtocols: ["http/1.1"] })
    : connectTcp(address)
  socket.on("connect", onConnect)
  socket.write("GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n")
  socket.setEncoding("latin1")
  socket.on("data", (chunk: string) => (text += chunk))
  socket.on("error", (error: NodeJS.ErrnoException) => (problem = error.code ?? error.message))
  socket.on("close", () => {
    if (/^HTTP\/1\.1 200 [^]*\r\n\r\nok$/.test(text)) answered++
    else problems.push(text === "" ? problem : text)
    closed++
    if (closed === count) say({ answered, problems } satisfies Output)
  })
}

parentPort!.once("message", () => {
  for (let index = 0; index < count; index++) open()
})
say("ready")
