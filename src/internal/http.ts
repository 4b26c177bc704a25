/**
 * The requests of an HTTP server, under a drain: which are in flight, which response is the last on its connection, and
 * what each kind of connection is told when the drain begins.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { IncomingMessage, Server as HttpServer, ServerResponse } from "node:http"
import type { Http2ServerResponse, ServerHttp2Session, ServerHttp2Stream } from "node:http2"
import type { Duplex } from "node:stream"
import { type Connection, of, type Timing } from "./connection.ts"
import { endWhenEndless } from "./endless.ts"
import * as Exchange from "./exchange.ts"
import type { Handler } from "./handler.ts"
import { onHead, sayClose, saysClose } from "./head.ts"
import { type Held, work } from "./held.ts"
import { hijacked, Hijacks } from "./hijack.ts"
import { ServerListener } from "./listener.ts"
import type { Process } from "./process.ts"
import { endAll, Session } from "./session.ts"
import { now } from "./sweep.ts"
import { cut } from "./text.ts"

const refused: unique symbol = Symbol("effect-kms/Refused")

interface Refusable {
  [refused]?: boolean
}

/** The fibers of handlers that have not ended. */
export interface Handling {
  readonly requests: ReadonlyMap<ServerResponse, Fiber.Fiber<unknown, unknown>>
  readonly upgrades: Iterable<Handler>
}

export interface Options {
  readonly kind: string
  readonly timing: Timing
  readonly host: Process
  /** Called when the drain begins, and when what is left is cut. */
  readonly onDrain: () => void
  readonly onForce: () => void
  /** Handlers that run, apart from what is on the connections. */
  readonly handlers: () => number
  /** Handlers that have not ended, those included that nobody waits for any longer. */
  readonly abandoned: () => number
  /** Those handlers, where they are fibers. */
  readonly handling: () => Handling
  /** Whether a response that has started goes on for ever. Without it, whoever answers ends those by himself. */
  readonly isEndless: ((response: ServerResponse) => boolean) | undefined
}

/**
 * The code of a stream that nothing was done about (RFC 9113 section 7). Node's own name for it is not worth loading
 * `node:http2` for, which takes 8 ms of CPU time at every start.
 */
const refusedStream = 0x7

/** Longer than the half second in which Effect lets a client read the answer to an upload that was cut short. */
const backstop = 1000

export class HttpListener extends ServerListener {
  private readonly server: HttpServer
  private readonly host: Process
  private readonly options: Options
  private readonly hijacks = new Hijacks(this.tally)
  private requests = 0

  constructor(server: HttpServer, options: Options) {
    super(options.kind, options.timing, options.host)
    this.server = server
    this.host = options.host
    this.options = options
    this.registry.attach(server, (connection) => this.onOpen(connection))
    // The members used here exist on every kind of server.
    server.on("session" as "close", ((session: ServerHttp2Session) => this.onSession(session)) as () => void)
  }

  // --- Connections ---

  private onOpen(connection: Connection): void {
    // It was in the accept queue, or finishes its handshake, as the drain begins: what its peer sends is answered.
    if (this.state === "draining") connection.schedule()
    else if (this.state === "forced") connection.destroy()
  }

  protected onClose(connection: Connection): void {
    const worked = connection.hijacked || connection.inFlight > 0
    // Responses that were still queued behind another one never hear that their connection has gone.
    this.requests -= connection.inFlight
    connection.inFlight = 0
    if (connection.hijacked) this.hijacks.closed(connection, this.state === "draining")
    if (this.isDraining && this.registry.all.size === 0) this.letGoOfServer()
    if (worked) this.worked()
    else this.check()
  }

  private onSession(session: ServerHttp2Session): void {
    const connection = of(session.socket)
    if (connection === undefined) return
    connection.session = new Session(session, connection, this.host)
    Exchange.multiplex(connection)
    if (this.state === "forced") connection.destroy()
  }

  // --- Requests ---

  /** To be called for each request, before anyone answers it. */
  readonly onRequest = (request: IncomingMessage, response: ServerResponse & Refusable): void => {
    // A listener for `checkContinue` may emit the same request once more.
    if (Exchange.of(response) !== undefined) return
    const stream = (response as unknown as Http2ServerResponse).stream
    const connection = of(stream === undefined ? request.socket : stream.session?.socket)
    if (connection === undefined) return
    if (stream !== undefined && sessionOf(connection)?.told === true) return this.refuse(response, stream)
    // Its client will be told that the one before it was the last. To do it and not to answer would be worse.
    if (Exchange.newest(connection)?.isLast === true) return this.ignore(request, response)
    const exchange = Exchange.begin(this, connection, response)
    connection.engage()
    this.requests++
    if (this.state !== "open") this.askToLeave(exchange)
    const { isEndless } = this.options
    if (isEndless !== undefined && this.state === "draining") endWhenEndless(response, isEndless)
  }

  /** A stream above the last one that the peer was told of. It is refused in a later turn: now it is still being read. */
  private refuse(response: Refusable, stream: ServerHttp2Stream): void {
    response[refused] = true
    Effect.runFork(this.host.turn).addObserver(() => stream.close(refusedStream))
  }

  /** What stays unread would reset the connection as it closes, and the response before it with it. */
  private ignore(request: IncomingMessage, response: Refusable): void {
    response[refused] = true
    request.resume()
  }

  /** Whether a request came too late to be answered. */
  readonly isRefused = (response: ServerResponse & Refusable): boolean => response[refused] === true

  onResponseClosed(exchange: Exchange.Exchange): void {
    const { connection } = exchange
    if (connection.inFlight === 0) return
    Exchange.end(exchange)
    connection.settle()
    this.requests--
    if (this.state === "open") return
    if (this.state === "draining") {
      this.tally.drained++
      // Node closes it after a response that said so. Should it not, that is not for ever.
      if (connection.inFlight === 0 && exchange.isLast) connection.closeAt(now() + backstop)
      else if (connection.inFlight === 0) this.letGo(connection)
    }
    this.worked()
  }

  /**
   * Lets a response be the last of its connection, if it is when its head is written. Of several on one connection only
   * the newest may be: Node drops the requests behind one that carries `Connection: close` (RFC 9112 section 9.6). And to
   * close after an answer to half an upload would reset the connection, and the answer with it.
   */
  private askToLeave(exchange: Exchange.Exchange): void {
    const { connection, response } = exchange
    const { session } = connection
    if (session !== undefined) {
      // The first stream of a session that opened late; what the peer sent along with it is in by the next turn.
      if (this.state === "draining") {
        const end = Effect.sync(() => session.end())
        Effect.runFork(Effect.andThen(this.host.turn, end))
      }
      return
    }
    onHead(
      response,
      (head) => {
        const { req } = response
        const mayBeLast = Exchange.newest(connection) === exchange && (req.complete || !Exchange.hasBody(req))
        return mayBeLast ? sayClose(response, head) : head
      },
      () => void (exchange.isLast = saysClose(response))
    )
  }

  // --- Upgrades ---

  /** To be called for each `upgrade` and `connect`. */
  readonly onHijack = (request: IncomingMessage, socket: Duplex): void => {
    const connection = of(socket) ?? of(request.socket)
    if (connection === undefined || connection.hijacked) return
    // A tunnel through one stream of an HTTP/2 session.
    if (connection.session !== undefined) return this.onRequest(request, socket as unknown as ServerResponse)
    const title = Exchange.titleOf(request)
    this.hijacks.take(connection, request.method === "CONNECT" ? title : `upgrade ${title}`)
    if (this.state === "draining") this.letGo(connection)
  }

  // --- The drain ---

  /** Whether responses ask their clients to leave. */
  readonly isLeaving = (): boolean => this.state !== "open"

  protected override onLameDuck(): void {
    for (const connection of this.registry.all) this.lastResponse(connection)
  }

  protected onBegin(warned: boolean): void {
    // Before anybody is told, since whoever is may answer at once.
    if (!warned) this.onLameDuck()
    this.options.onDrain()
    const sessions: Array<Session> = []
    const end = (session: Session) => sessions.push(session)
    const { isEndless } = this.options
    for (const connection of this.registry.all) {
      if (isEndless !== undefined && connection.inFlight > 0) {
        Exchange.each(connection, ({ response }) => endWhenEndless(response, isEndless))
      }
      this.letGo(connection, end)
    }
    endAll(sessions, this.host)
    if (this.registry.all.size === 0) this.letGoOfServer()
  }

  /**
   * The listening socket has closed long ago. What is left is the timer that looks for slow heads, which keeps the server
   * in memory; only `close` ends it. It is not to tell the server's own listeners once more that it has closed, and not to
   * look through 10,000 connections which have just been destroyed for one that is idle.
   */
  private letGoOfServer(): void {
    const server = this.server as { _emitCloseIfDrained?: () => void; closeIdleConnections?: () => void }
    server._emitCloseIfDrained = () => {}
    server.closeIdleConnections = () => {}
    this.server.close()
    delete server._emitCloseIfDrained
    delete server.closeIdleConnections
  }

  private lastResponse(connection: Connection): void {
    const newest = Exchange.newest(connection)
    if (newest !== undefined && !newest.response.headersSent) this.askToLeave(newest)
  }

  /** Lets a connection go as soon as nobody needs it. */
  private letGo(connection: Connection, end = (session: Session): unknown => session.end()): void {
    const session = sessionOf(connection)
    if (connection.hijacked) this.hijacks.letGo(connection)
    else if (session !== undefined && (connection.inFlight > 0 || connection.spoke)) end(session)
    else if (connection.inFlight === 0) connection.schedule()
  }

  protected onForce(): void {
    for (const connection of Array.from(this.registry.all)) {
      inFlight(connection, (held) => this.tally.note(cut(work(held))))
      connection.destroy()
    }
    this.options.onForce()
  }

  // --- What it says of itself ---

  protected get handlers(): number {
    return this.options.handlers()
  }
  protected get unended(): number {
    return this.options.abandoned()
  }
  readonly inFlight = (): number => Math.max(this.requests + this.hijacks.size, this.handlers)
  override readonly isQuiet = (): boolean => this.requests + this.hijacks.size === 0 && this.handlers === 0

  protected works(): Array<Held> {
    const { requests, upgrades } = this.options.handling()
    const works: Array<Held> = []
    const add = (held: Held) => void works.push(held)
    for (const connection of this.registry.all) {
      if (connection.inFlight > 0 || connection.hijacked) inFlight(connection, add, requests)
    }
    for (const [response, fiber] of requests) {
      const exchange = Exchange.of(response)
      if (exchange !== undefined && (exchange.hasEnded || exchange.connection.isGone)) {
        add(new Exchange.InFlight(exchange, fiber))
      }
    }
    for (const { connection, fiber } of upgrades) {
      if (connection?.socket.destroyed === true) add({ ...hijacked(connection), fiber })
    }
    return works
  }
}

/** Calls `visit` with what is in flight on a connection. */
const inFlight = (connection: Connection, visit: (held: Held) => void, requests?: Handling["requests"]): void => {
  if (connection.hijacked) return visit(hijacked(connection))
  Exchange.each(connection, (exchange) => visit(new Exchange.InFlight(exchange, requests?.get(exchange.response))))
}

const sessionOf = ({ session }: Connection): Session | undefined => (session instanceof Session ? session : undefined)
