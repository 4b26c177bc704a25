/**
 * The requests of an HTTP server, under a drain: which are in flight, which response is the last on its connection, and
 * what each kind of connection is told when the drain begins.
 */
import * as Effect from "effect/Effect"
import type { IncomingMessage, Server as HttpServer, ServerResponse } from "node:http"
import { constants, type Http2ServerResponse, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2"
import { Server as NetServer } from "node:net"
import type { Duplex } from "node:stream"
import { type Connection, Connections, of, type Timing } from "./connections.ts"
import type { Listener } from "./drain.ts"
import type { Process } from "./process.ts"
import { duration } from "./report.ts"

/** One request and its response. */
export interface Exchange {
  readonly listener: HttpListener
  readonly connection: Connection
  readonly response: ServerResponse
  readonly startedAt: number
  /** The one before it on its connection, where a client pipelines. */
  earlier: Exchange | undefined
  /** What `shouldKeepAlive` was before this response was made the last. */
  keptAlive: boolean | undefined
}

const key: unique symbol = Symbol("effect-kms/Exchange")
const refused: unique symbol = Symbol("effect-kms/Refused")

interface Keyed {
  [key]?: Exchange
  [refused]?: boolean
}

/** The HTTP/2 streams of a connection, or the newest of its HTTP/1 responses. */
type Work = Set<Exchange> | Exchange | undefined

export interface Options {
  readonly kind: string
  readonly timing: Timing
  readonly host: Process
  /** Called whenever something has ended that a drain may wait for. */
  readonly check: () => void
  /** Called when the drain begins, and when what is left is cut. */
  readonly onDrain: () => void
  readonly onForce: () => void
  /** Handlers that run, apart from what is on the connections. */
  readonly handlers: () => number
  /** Handlers that have not ended, those included that nobody waits for any longer. */
  readonly abandoned: () => number
  /** Whether an upgraded connection has someone who will end it; if not, it gets `closeTimeout` from now on. */
  readonly isHandled: (connection: Connection) => boolean
  /** Whether a response that has started goes on for ever. */
  readonly isEndless: (response: ServerResponse) => boolean
}

const maxCutWork = 20

/** Longer than the half second in which Effect lets a client read the answer to an upload that was cut short. */
const backstop = 1000

export class HttpListener implements Listener {
  readonly kind: string
  /** Known once it is bound. */
  name = ""
  address = ""
  private readonly server: HttpServer
  private readonly options: Options
  private readonly registry: Connections
  private requests = 0
  private hijacked = 0
  private state: "open" | "leaving" | "draining" | "forced" = "open"
  private drained = 0
  private cut = 0
  private readonly cutWork: Array<string> = []

  constructor(server: HttpServer, options: Options) {
    this.server = server
    this.options = options
    this.kind = options.kind
    this.registry = new Connections(options.timing, options.host, this.onClose, options.isHandled)
    this.registry.attach(server, this.onOpen)
    // The members used here exist on every kind of server.
    server.on("session" as "close", ((session: ServerHttp2Session) => this.onSession(session)) as () => void)
  }

  // --- Connections ---

  private readonly onOpen = (connection: Connection): void => {
    // It was in the accept queue, or finishes its handshake, as the drain begins: what its peer sends is answered.
    if (this.state === "draining") connection.schedule(this.options.timing)
    else if (this.state === "forced") connection.destroy()
  }

  private readonly onClose = (connection: Connection): void => {
    // Responses that were still queued behind another one never hear that their connection has gone.
    this.requests -= connection.inFlight
    connection.inFlight = 0
    if (connection.hijacked) {
      this.hijacked--
      if (this.state === "draining" && connection.expired && !connection.answered)
        this.note(`upgraded connection from ${peer(connection)}`)
      else if (this.state === "draining") this.drained++
    }
    if (this.isDraining && this.registry.all.size === 0) this.letGoOfServer()
    this.options.check()
  }

  private onSession(session: ServerHttp2Session): void {
    const connection = of(session.socket)
    if (connection === undefined) return
    connection.session = session
    connection.work = new Set<Exchange>()
    if (this.state === "forced") connection.destroy()
  }

  // --- Requests ---

  /** To be called for each request, before anyone answers it. */
  readonly onRequest = (request: IncomingMessage, response: ServerResponse & Keyed): void => {
    // A listener for `checkContinue` may emit the same request once more.
    if (response[key] !== undefined) return
    const stream = (response as unknown as Http2ServerResponse).stream
    const connection = of(stream === undefined ? request.socket : stream.session?.socket)
    if (connection === undefined) return
    if (stream !== undefined && connection.told) return this.refuse(response, stream)
    const exchange: Exchange = {
      listener: this,
      connection,
      response,
      startedAt: performance.now(),
      earlier: undefined,
      keptAlive: undefined
    }
    response[key] = exchange
    response.on("close", responseClosed)
    connection.engage()
    this.requests++
    const work = connection.work as Work
    if (work instanceof Set) work.add(exchange)
    else {
      exchange.earlier = work
      connection.work = exchange
    }
    if (this.state !== "open") this.askToLeave(exchange)
    if (this.state === "draining") this.endWhenEndless(exchange)
  }

  /** A stream above the last one that the peer was told of. It is refused in a later turn: now it is still being read. */
  private refuse(response: Keyed, stream: ServerHttp2Stream): void {
    response[refused] = true
    Effect.runFork(this.options.host.turn).addObserver(() => stream.close(constants.NGHTTP2_REFUSED_STREAM))
  }

  /** Whether a request came too late to be answered. */
  readonly isRefused = (response: ServerResponse & Keyed): boolean => response[refused] === true

  onResponseClosed(exchange: Exchange): void {
    const { connection } = exchange
    if (connection.inFlight === 0) return
    exchange.earlier = undefined
    if (connection.work instanceof Set) connection.work.delete(exchange)
    else if (connection.work === exchange) connection.work = undefined
    connection.settle()
    this.requests--
    if (this.state === "open") return
    if (this.state === "draining") {
      this.drained++
      // Node closes it after a response that said so. Should it not, that is not for ever.
      if (connection.inFlight === 0 && exchange.keptAlive !== undefined)
        connection.closeAt(performance.now() + backstop)
      else if (connection.inFlight === 0) this.letGo(connection)
    }
    this.options.check()
  }

  /**
   * Makes a response the last of its connection. Of several responses on one connection only the newest may be: Node
   * drops the requests behind one that carries `Connection: close` (RFC 9112 section 9.6).
   */
  private askToLeave(exchange: Exchange): void {
    const { connection, earlier, response } = exchange
    const { session } = connection
    if (session !== undefined) {
      // The first stream of a session that opened late; what the peer sent along with it is in by the next turn.
      if (this.state === "draining") {
        const end = Effect.sync(() => connection.endSession(session))
        Effect.runFork(Effect.andThen(this.options.host.turn, end))
      }
      return
    }
    if (response.headersSent) return
    // To close after an answer to half an upload would reset the connection, and the answer with it.
    const { req } = response
    if (!req.complete && hasBody(req)) return void req.prependOnceListener("end", () => this.askToLeave(exchange))
    if (earlier?.keptAlive !== undefined && !earlier.response.headersSent) {
      earlier.response.shouldKeepAlive = earlier.keptAlive
      earlier.keptAlive = undefined
    }
    exchange.keptAlive = response.shouldKeepAlive
    response.shouldKeepAlive = false
  }

  // --- Upgrades ---

  /** To be called for each `upgrade` and `connect`. */
  readonly onHijack = (request: IncomingMessage, socket: Duplex): void => {
    const connection = of(socket) ?? of(request.socket)
    if (connection === undefined || connection.hijacked) return
    // A tunnel through one stream of an HTTP/2 session.
    if (connection.session !== undefined) return this.onRequest(request, socket as unknown as ServerResponse)
    connection.hijacked = true
    this.hijacked++
    connection.due = Number.POSITIVE_INFINITY
    connection.work = undefined
    if (this.state === "draining") this.letGo(connection)
  }

  // --- The drain ---

  private get isDraining(): boolean {
    return this.state === "draining" || this.state === "forced"
  }

  /** Whether responses ask their clients to leave. */
  readonly isLeaving = (): boolean => this.state !== "open"

  readonly lameDuck = (): void => {
    if (this.state !== "open") return
    this.state = "leaving"
    for (const connection of this.registry.all) this.lastResponse(connection)
  }

  readonly begin = (): void => {
    if (this.isDraining) return
    const warned = this.state === "leaving"
    this.state = "draining"
    // `http.Server.close` would destroy connections whose response is still on its way out (nodejs/node#60617).
    NetServer.prototype.close.call(this.server)
    this.options.onDrain()
    for (const connection of this.registry.all) {
      if (!warned) this.lastResponse(connection)
      for (const exchange of exchanges(connection)) this.endWhenEndless(exchange)
      this.letGo(connection)
    }
    if (this.registry.all.size === 0) this.letGoOfServer()
  }

  /**
   * The listening socket has closed long ago. What is left is the timer that looks for slow heads, which keeps the server
   * in memory; only `close` ends it, and is not to tell the server's own listeners once more that it has closed.
   */
  private letGoOfServer(): void {
    const server = this.server as { _emitCloseIfDrained?: () => void }
    server._emitCloseIfDrained = () => {}
    this.server.close()
    delete server._emitCloseIfDrained
  }

  private lastResponse(connection: Connection): void {
    const work = connection.work as Work
    if (work !== undefined && !(work instanceof Set) && !work.response.headersSent) this.askToLeave(work)
  }

  /** Lets a connection go as soon as nobody needs it. */
  private letGo(connection: Connection): void {
    const { session } = connection
    if (connection.hijacked) {
      if (!this.options.isHandled(connection)) this.handled(connection)
    } else if (session !== undefined && (connection.inFlight > 0 || connection.spoke)) connection.endSession(session)
    else if (connection.inFlight === 0) connection.schedule(this.options.timing)
  }

  /** The handler of an upgraded connection has ended: its peer has `closeTimeout` to answer. */
  handled(connection: Connection): void {
    connection.closeAt(performance.now() + this.options.timing.closeTimeout)
  }

  /** Ends the body of a response that goes on for ever, as if its handler had: for the client that is its end, not a failure. */
  private endWhenEndless(exchange: Exchange): void {
    const { response } = exchange
    const end = () => {
      if (response.writableEnded || !this.isEndless(response)) return
      response.end()
      // Its handler may not know, and writes on. That would be an error, and over HTTP/2 reset the stream.
      const ignore = (args: ReadonlyArray<unknown>) => {
        const callback = args.at(-1)
        if (typeof callback === "function") queueMicrotask(() => callback())
      }
      response.write = (...args: ReadonlyArray<unknown>) => {
        ignore(args)
        return true
      }
      response.end = (...args: ReadonlyArray<unknown>) => {
        ignore(args)
        return response
      }
    }
    if (response.headersSent) return end()
    const writeHead = response.writeHead
    response.writeHead = function (this: ServerResponse, ...args: Array<unknown>) {
      Reflect.deleteProperty(response, "writeHead")
      const result = (writeHead as (...args: Array<unknown>) => ServerResponse).apply(this, args)
      queueMicrotask(end)
      return result
    } as typeof writeHead
  }

  /** The predicate is the user's: one that throws has said nothing. */
  private isEndless(response: ServerResponse): boolean {
    try {
      return this.options.isEndless(response)
    } catch {
      return false
    }
  }

  readonly force = (): void => {
    if (this.state === "forced") return
    this.begin()
    this.state = "forced"
    const at = performance.now()
    for (const connection of Array.from(this.registry.all)) {
      if (connection.hijacked) this.note(`upgraded connection from ${peer(connection)}`)
      for (const { response, startedAt } of exchanges(connection)) {
        this.note(`${title(response)} from ${peer(connection)} after ${duration(at - startedAt)}`)
      }
      connection.destroy()
    }
    this.options.onForce()
  }

  private note(work: string): void {
    this.cut++
    if (this.cutWork.length < maxCutWork) this.cutWork.push(work)
  }

  // --- What it says of itself ---

  readonly accepted = (): number => this.registry.accepted
  readonly connections = (): number => this.registry.all.size
  readonly inFlight = (): number => Math.max(this.requests + this.hijacked, this.options.handlers())
  readonly isEmpty = (): boolean => this.registry.all.size === 0 && this.options.handlers() === 0

  readonly oldest = (): string | undefined => {
    let oldest: Exchange | undefined
    for (const connection of this.registry.all) {
      for (const exchange of exchanges(connection)) {
        if (oldest === undefined || exchange.startedAt < oldest.startedAt) oldest = exchange
      }
    }
    if (oldest === undefined) return undefined
    return `${title(oldest.response)} for ${duration(performance.now() - oldest.startedAt)}`
  }

  readonly counts = () => ({
    drained: this.drained,
    cut: this.cut,
    abandoned: this.state === "forced" ? this.options.abandoned() : 0,
    cutWork: this.cutWork
  })
}

function responseClosed(this: ServerResponse & Keyed): void {
  const exchange = this[key]
  exchange?.listener.onResponseClosed(exchange)
}

function* exchanges(connection: Connection): Iterable<Exchange> {
  const work = connection.work as Work
  if (work instanceof Set) return yield* work
  let exchange = work
  for (let left = connection.inFlight; exchange !== undefined && left > 0; left--) {
    yield exchange
    exchange = exchange.earlier
  }
}

/** Method and path: a query may hold what does not belong in a log. */
const title = ({ req }: ServerResponse): string => `${req.method} ${(req.url ?? "").replace(/[?#].*$/s, "")}`

const peer = ({ carrier, peer }: Connection): string => carrier.remoteAddress ?? peer ?? "a local socket"

/** Whether a request has a body (RFC 9112 section 6.3). */
const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0

/** Whether a media type is that of an event stream. */
export const isEventStreamType = (type: string): boolean => /^text\/event-stream\s*(;|$)/i.test(type)

/** Whether the headers of a response say that it is an event stream. */
export const isEventStream = (response: ServerResponse): boolean => {
  const type = response.getHeader("content-type")
  if (type !== undefined) return isEventStreamType(String(type))
  // Headers given to `writeHead` alone are nowhere but in the head as it was sent. Private to Node, pinned by a test.
  const head = (response as { readonly _header?: string | null })._header ?? ""
  return isEventStreamType(/^content-type: *(.*)$/im.exec(head)?.[1] ?? "")
}
