/**
 * HTTP/1.1 clients over bare sockets: a library would hide, or repeat, what is to be counted.
 *
 * A request fails when no whole and right response comes, however its connection ended, and when it could not be connected.
 * Nothing is sent on a connection whose end has been seen.
 */
import { connect, type Socket } from "node:net"
import { Responses } from "../../../test/support/responses.ts"
import { now } from "../ledger.ts"
import type { Address } from "../load.ts"
import { type Client, onPort } from "./client.ts"

interface Outcome {
  /** What went wrong, if anything did. */
  readonly problem?: string
  /** Whether another request may follow on the connection. */
  readonly open: boolean
}

/** One connection: one request at a time. */
class Connection {
  readonly opened = now()
  private readonly socket: Socket
  private readonly client: Client
  private readonly responses = new Responses()
  private ended = false
  private answeredAt: number | undefined
  private port: number | undefined
  private waiting:
    | { readonly path: string; readonly written: number; readonly done: (outcome: Outcome) => void }
    | undefined

  constructor(client: Client, address: Address) {
    this.client = client
    client.ledger.counts.connections++
    this.socket = connect({ ...address, noDelay: true })
    this.socket.setEncoding("latin1")
    onPort(this.socket, (port) => (this.port = port))
    this.socket.on("data", (chunk: string) => this.hear(chunk))
    this.socket.on("end", () => this.gone("the connection ended"))
    this.socket.on("error", (error: NodeJS.ErrnoException) => this.gone(error.code ?? error.message))
    this.socket.on("close", () => this.gone("the connection closed"))
  }

  isOpen = (): boolean => !this.ended

  ask(path: string, last: boolean, done: (outcome: Outcome) => void): void {
    this.client.ledger.counts.sent++
    this.waiting = { path, written: now(), done }
    this.socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n${last ? "Connection: close\r\n" : ""}\r\n`)
  }

  close(): void {
    this.ended = true
    this.socket.end()
  }

  private hear(chunk: string): void {
    for (const { body, close, status } of this.responses.push(chunk)) {
      const { waiting } = this
      if (waiting === undefined) {
        this.client.ledger.counts.twice++
        continue
      }
      if (status !== 200 || body !== waiting.path) {
        this.close()
        return this.fail(status === 200 ? "not the response to the request" : `status ${status}`)
      }
      this.waiting = undefined
      this.answeredAt = now()
      this.client.ledger.counts.answered++
      this.client.heard()
      if (close) this.close()
      waiting.done({ open: !close })
    }
  }

  private gone(how: string): void {
    if (this.ended) return
    this.ended = true
    this.socket.end()
    if (this.waiting === undefined) this.client.ledger.counts.endedIdle++
    else this.fail(how)
  }

  private fail(how: string): void {
    const { done, written } = this.waiting!
    this.waiting = undefined
    const idle = this.answeredAt === undefined ? undefined : written - this.answeredAt
    this.client.ledger.fail({ how, opened: this.opened, written, idle, port: this.port })
    done({ problem: how, open: false })
  }
}

/**
 * Requests on one connection until its server sends it away, then on another one; with `onLeft` it is over then. `think` is
 * the pause before each.
 */
export const keepAlive = (
  client: Client,
  address: Address,
  think: readonly [number, number],
  onLeft?: () => void
): void => {
  const { id, ledger, pause, random, stopping } = client
  let count = 0
  let connection = new Connection(client, address)
  const next = (): void => {
    if (stopping()) return connection.close()
    if (!connection.isOpen()) {
      if (onLeft !== undefined) return onLeft()
      connection = new Connection(client, address)
    }
    // Some take their time, so that something is in flight at every moment.
    const millis = random.chance(0.2) ? random.between(50, 400) : 0
    connection.ask(`/echo/${id}-${count++}?ms=${millis}`, false, ({ open, problem }) => {
      if (!open && problem === undefined) ledger.counts.sentAway++
      // An open connection is in use: the pause is the client's, and its server does not know of it.
      pause(...think, next)
    })
  }
  next()
}

/** A connection for each request. */
export const oneShot = (client: Client): void => {
  const { id, load, pause, random, stopping } = client
  let count = 0
  const next = (): void => {
    if (stopping()) return
    const millis = random.chance(0.1) ? random.between(50, 400) : 0
    new Connection(client, load.http).ask(`/echo/${id}-${count++}?ms=${millis}`, true, () => pause(5, 40, next))
  }
  next()
}
