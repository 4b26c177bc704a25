/**
 * A worker that opens many connections to a listener and sends the same question on each: all at once, or a few at a time.
 * What it sends while the thread that serves it stands still waits in the kernel, in the accept queue of the socket.
 */
import { connect as connectTcp, type Socket } from "node:net"
import { connect as connectTls } from "node:tls"
import { parentPort, workerData } from "node:worker_threads"
import { cert } from "./certificate.ts"
import type { Address } from "./peers.ts"

export interface Input {
  readonly address: Address
  readonly tls: string | undefined
  readonly question: Uint8Array
  /** What an answer has in it. Whoever has it goes. */
  readonly answer: string
  readonly count: number
  /** As many are opened at a time, once those before have been connected or refused. */
  readonly pace: number
  /** Its first element counts those that stand, and is told of each. */
  readonly gate: SharedArrayBuffer
}

export interface Output {
  /** Connections that brought the whole answer. */
  readonly served: number
  /** Those that did not come about: the listener was gone. */
  readonly refused: number
  /** What became of the others. */
  readonly problems: ReadonlyArray<string>
}

const { address, answer, count, gate, pace, question, tls } = workerData as Input
const standing = new Int32Array(gate)
const problems: Array<string> = []
let opened = 0
let settled = 0
let closed = 0
let served = 0
let refused = 0

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is not a window
const say = (message: unknown) => parentPort!.postMessage(message)

const settle = () => {
  settled++
  if (settled === opened) openSome()
}

const openSome = () => {
  for (let left = pace; left > 0 && opened < count; left--) {
    opened++
    open()
  }
}

const open = (): void => {
  let text = ""
  let problem = "closed without an answer"
  let connected = false
  let isServed = false
  const carrier = connectTcp(address)
  const socket: Socket =
    tls === undefined
      ? carrier
      : connectTls({ socket: carrier, ca: cert, servername: "localhost", ALPNProtocols: [tls] })
  carrier.once("connect", () => {
    connected = true
    Atomics.add(standing, 0, 1)
    Atomics.notify(standing, 0)
    settle()
  })
  socket.write(question)
  socket.setEncoding("latin1")
  socket.on("data", (chunk: string) => {
    text += chunk
    if (isServed || !text.includes(answer)) return
    isServed = true
    socket.end()
  })
  const onError = (error: NodeJS.ErrnoException) => (problem = error.code ?? error.message)
  socket.on("error", onError)
  carrier.on("error", onError)
  carrier.on("close", () => {
    if (isServed) served++
    else if (problem === "ECONNREFUSED" || problem === "ENOENT") refused++
    else problems.push(connected ? `${problem} after ${JSON.stringify(text)}` : problem)
    closed++
    if (!connected) settle()
    if (closed === count) say({ served, refused, problems } satisfies Output)
  })
}

parentPort!.once("message", openSome)
say("ready")
