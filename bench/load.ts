/**
 * A process of clients that load a server: so many connections, each of which asks again when it has been answered, until so
 * many requests have been answered. Reads no more of an answer than its end, so that it takes less time than the server.
 * With `short` each connection has one request, and its client ends it.
 *
 * Prints `done 1` then. Without `short` it waits for SIGUSR2, asks as many again on the same connections, and so on.
 */
import { connect, type Socket } from "node:net"

export interface Loading {
  readonly port: number
  readonly connections: number
  readonly requests: number
  /** A connection for each request. */
  readonly short?: boolean
}

const { connections, port, requests, short = false } = JSON.parse(process.argv[2]!) as Loading

const request = Buffer.from("GET /quick HTTP/1.1\r\nHost: local\r\n\r\n")
const end = "\r\n\r\nquick"

let runs = 1
let asked = 0
let answered = 0
let opened = 0
/** Connections that have nothing to ask. */
const idle: Array<Socket> = []

const ask = (socket: Socket): void => {
  asked++
  socket.write(request)
}

const done = (): void => {
  console.log(`done ${runs}`)
  if (short) process.exit(0)
}

const hear = (socket: Socket): void => {
  answered++
  if (short) {
    socket.end()
    if (opened < requests) open()
  } else if (asked < runs * requests) ask(socket)
  else idle.push(socket)
  if (answered === runs * requests) done()
}

const open = (): void => {
  // From many addresses: each of them has only so many ports, and one that was used waits a minute.
  opened++
  const socket = connect({ port, host: "127.0.0.1", localAddress: `127.0.0.${2 + (opened % 200)}`, noDelay: true })
  let rest = ""
  socket.on("connect", () => ask(socket))
  socket.on("data", (chunk) => {
    rest += chunk.toString("latin1")
    if (!rest.endsWith(end)) return
    rest = ""
    hear(socket)
  })
  socket.on("error", (error) => {
    console.log(`failed ${error.message}`)
    process.exit(1)
  })
}

process.on("SIGUSR2", () => {
  runs++
  for (const socket of idle.splice(0)) ask(socket)
})

for (let left = Math.min(connections, requests); left > 0; left--) open()
