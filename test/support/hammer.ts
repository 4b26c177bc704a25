/**
 * A process of clients that count what they lose. Each has one connection, writes a request, waits for its response,
 * thinks for a while and writes the next one, until its server sends it away.
 *
 * A request is lost when it had been written whole on a connection of which no end had been seen, and no whole response
 * came. Over HTTP/2 a stream that was refused is not lost, since its client may send it again; one in silence is.
 *
 * Prints `busy` once every connection is in use, and at the end what it counted. SIGTERM stops clients that nobody sends
 * away, after the response that they wait for.
 */
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2"
import { connect as connectTcp, type Socket } from "node:net"
import { connect as connectTls } from "node:tls"
import { cert } from "./certificate.ts"
import { Responses } from "./responses.ts"

/** `h2c` is HTTP/2 in clear text. */
export type Protocol = "http" | "https" | "http2" | "h2c"

export interface Hammering {
  readonly port: number
  readonly protocol: Protocol
  readonly connections: number
  /** The shortest and the longest pause between a response and the next request, in milliseconds. */
  readonly think: readonly [number, number]
}

export interface Counted {
  answered: number
  /** Responses that were not those to the request. */
  wrong: number
  lost: number
  /** Told not to have been taken, so that they may be sent again: a write that failed, a refused HTTP/2 stream. */
  refused: number
  /** Connections that were sent away by their last response, or by GOAWAY. */
  sentAway: number
  /** Connections that ended while nothing was in flight on them. */
  endedIdle: number
  /** Clients that had to be stopped. */
  stopped: number
  /** How the first lost requests were lost. */
  readonly losses: Array<string>
}

const counted: Counted = {
  answered: 0,
  wrong: 0,
  lost: 0,
  refused: 0,
  sentAway: 0,
  endedIdle: 0,
  stopped: 0,
  losses: []
}

let stopping = false
process.on("SIGTERM", () => {
  stopping = true
})

const lose = (how: string): void => {
  counted.lost++
  if (counted.losses.length < 5) counted.losses.push(how)
}

const { connections, port, protocol, think } = JSON.parse(process.argv[2]!) as Hammering

/** Answers that a connection has to have had before it counts as in use. */
const inUse = think[1] === 0 ? 5 : 1
let notInUse = connections
const answered = (count: number): void => {
  counted.answered++
  if (count === inUse && --notInUse === 0) process.stdout.write("busy\n")
}

/** Calls back after a pause; at once where there is none. */
const afterThought = (next: () => void): void => {
  const [least, most] = think
  if (most === 0) next()
  else setTimeout(next, least + Math.random() * (most - least))
}

/** Not all of them at once, or they would go on in step. */
const begin = (ask: () => void): void => {
  if (think[1] === 0) ask()
  else setTimeout(ask, Math.random() * think[1])
}

const client1 = (id: number): void => {
  const address = { host: "127.0.0.1", port }
  const socket: Socket =
    protocol === "https" ? connectTls({ ...address, ca: cert, servername: "localhost" }) : connectTcp(address)
  const responses = new Responses()
  let count = 0
  let ended = false
  let answeredAt = performance.now()
  let inFlight: { readonly path: string; readonly at: number; written: boolean } | undefined

  const ask = (): void => {
    if (ended) return
    if (stopping) {
      counted.stopped++
      return void leave()
    }
    const request = { path: `/${id}-${count}`, at: performance.now(), written: false }
    inFlight = request
    socket.write(`GET ${request.path} HTTP/1.1\r\nHost: localhost\r\n\r\n`, (error) => {
      request.written = error === undefined || error === null
    })
  }
  const leave = (): void => {
    ended = true
    socket.end()
  }
  const gone = (how: string): void => {
    if (ended) return
    ended = true
    if (inFlight === undefined) counted.endedIdle++
    else if (!inFlight.written) counted.refused++
    else {
      const idle = Math.round(inFlight.at - answeredAt)
      const waited = Math.round(performance.now() - inFlight.at)
      lose(`${inFlight.path}: ${how} after ${waited} ms, written when ${idle} ms idle`)
    }
  }
  socket.once(protocol === "https" ? "secureConnect" : "connect", () => begin(ask))
  socket.setEncoding("latin1")
  socket.on("data", (chunk: string) => {
    for (const { body, close, status } of responses.push(chunk)) {
      if (status !== 200 || body !== inFlight?.path) counted.wrong++
      inFlight = undefined
      answeredAt = performance.now()
      count++
      answered(count)
      if (close) {
        counted.sentAway++
        leave()
      } else afterThought(ask)
    }
  })
  socket.on("end", () => gone("the connection ended"))
  socket.on("error", (error: NodeJS.ErrnoException) => gone(error.code ?? error.message))
  socket.on("close", () => gone("the connection closed"))
}

const client2 = (id: number): void => {
  const session: ClientHttp2Session =
    protocol === "http2"
      ? connectHttp2(`https://127.0.0.1:${port}`, { ca: cert, servername: "localhost" })
      : connectHttp2(`http://127.0.0.1:${port}`)
  let count = 0
  let last = Number.POSITIVE_INFINITY
  let leaving = false
  session.on("goaway", (_code, lastStream: number) => {
    last = Math.min(last, lastStream)
    if (!leaving) counted.sentAway++
    leaving = true
  })
  session.on("error", () => {})
  const ask = (): void => {
    if (leaving) return
    if (session.closed || session.destroyed) return void counted.endedIdle++
    if (stopping) {
      counted.stopped++
      return session.close()
    }
    const path = `/${id}-${count}`
    const stream = session.request({ ":path": path })
    let status = 0
    let body = ""
    let whole = false
    let problem = ""
    stream.setEncoding("latin1")
    stream.on("response", (headers) => {
      status = headers[":status"] ?? 0
    })
    stream.on("data", (chunk: string) => {
      body += chunk
    })
    stream.on("end", () => {
      whole = status !== 0 && stream.rstCode === 0
    })
    stream.on("error", (error: NodeJS.ErrnoException) => {
      problem = error.code ?? error.message
    })
    stream.on("close", () => {
      if (whole) {
        if (status !== 200 || body !== path) counted.wrong++
        count++
        answered(count)
        afterThought(ask)
        return
      }
      // Refused by name, above the last stream of a GOAWAY, or never sent at all.
      if (stream.rstCode === 7 || stream.id === undefined || stream.id > last) counted.refused++
      else lose(`${path}: stream ${stream.id} closed with ${stream.rstCode} ${problem}`)
    })
  }
  session.once("connect", () => begin(ask))
}

process.once("beforeExit", () => process.stdout.write(`counted ${JSON.stringify(counted)}\n`))

const client = protocol === "http" || protocol === "https" ? client1 : client2
for (let id = 0; id < connections; id++) client(id)
