/**
 * HTTP/2 clients in clear text: one session each, two streams at a time, until GOAWAY; then another session.
 *
 * A stream that the server refuses, by its code or by the number in its GOAWAY, has not been begun, and is sent again: that
 * is counted as repeated. Anything else that is no whole and right response has failed.
 */
import { type ClientHttp2Session, connect, constants } from "node:http2"
import { connect as connectSocket } from "node:net"
import { now } from "../ledger.ts"
import { type Client, onPort } from "./client.ts"

interface Session {
  readonly session: ClientHttp2Session
  readonly opened: number
  last: number
  leaving: boolean
  open: number
  port: number | undefined
}

const width = 2

export const http2 = (client: Client): void => {
  const { heard, id, ledger, load, pause, random, stopping } = client
  const { counts } = ledger
  let current: Session | undefined
  let count = 0

  const open = (): Session => {
    counts.connections++
    const socket = connectSocket({ ...load.http2, noDelay: true })
    const session = connect(`http://${load.http2.host}:${load.http2.port}`, { createConnection: () => socket })
    const made: Session = {
      session,
      opened: now(),
      last: Number.POSITIVE_INFINITY,
      leaving: false,
      open: 0,
      port: undefined
    }
    onPort(socket, (port) => (made.port = port))
    session.on("goaway", (_code, lastStream: number) => {
      made.last = Math.min(made.last, lastStream)
      if (!made.leaving) counts.sentAway++
      made.leaving = true
    })
    // Each stream of it tells how it ended.
    session.on("error", () => {})
    session.on("close", () => {
      if (!made.leaving && made.open === 0 && !stopping()) counts.endedIdle++
      made.leaving = true
    })
    return made
  }

  const usable = (): Session => {
    if (current === undefined || current.leaving || current.session.closed || current.session.destroyed)
      current = open()
    return current
  }

  const ask = (path: string, next: () => void): void => {
    const used = usable()
    const written = now()
    counts.sent++
    used.open++
    let status = 0
    let body = ""
    let ended = false
    let problem = ""
    const stream = used.session.request({ ":path": path })
    stream.setEncoding("latin1")
    stream.on("response", (headers) => {
      status = headers[":status"] ?? 0
    })
    stream.on("data", (chunk: string) => {
      body += chunk
    })
    stream.on("end", () => {
      ended = true
    })
    stream.on("error", (error: NodeJS.ErrnoException) => {
      problem = error.code ?? error.message
    })
    stream.on("close", () => {
      used.open--
      if (ended && stream.rstCode === 0 && status === 200 && body === path) {
        counts.answered++
        heard()
        return pause(0, 60, next)
      }
      const refused =
        stream.rstCode === constants.NGHTTP2_REFUSED_STREAM || stream.id === undefined || stream.id > used.last
      if (refused && used.leaving) {
        counts.repeated++
        return ask(path, next)
      }
      const how = `stream ${stream.id}: status ${status}, code ${stream.rstCode} ${problem}`
      ledger.fail({ how, opened: used.opened, written, idle: undefined, port: used.port })
      pause(0, 60, next)
    })
  }

  let running = width
  const next = (): void => {
    if (stopping()) {
      if (--running === 0) current?.session.close()
      return
    }
    const millis = random.chance(0.2) ? random.between(50, 400) : 0
    ask(`/echo/${id}-${count++}?ms=${millis}`, next)
  }
  for (let index = 0; index < width; index++) next()
}
