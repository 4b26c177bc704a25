/**
 * The sockets of one listener: silent, reading, active, idle or hijacked.
 *
 * Node's own bookkeeping misses some of them: `closeIdleConnections` those that never spoke, `closeAllConnections` those
 * that were upgraded. So there is one small record a connection, kept on the socket under a symbol.
 *
 * What is here waits for real peers, so it runs on the real clock, whatever clock the program has.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Server, Socket } from "node:net"
import type { Process } from "./process.ts"

const key: unique symbol = Symbol("effect-kms/Connection")

interface Keyed {
  [key]?: Connection
  /** Of a `TLSSocket`: the socket that carries it. Private to Node, and pinned by a test. */
  readonly _parent?: Keyed
}

/** Something that carries streams over a connection, and closes in its own way: an HTTP/2 session. */
export interface Session {
  /** Tells the peer which stream was the last. */
  readonly goaway: () => void
  readonly close: () => void
  readonly destroy: () => void
}

export class Connection {
  /** The outermost socket: over TLS the one with the plain text. */
  socket: Socket
  /** The one that counts the bytes from the network. */
  readonly carrier: Socket
  readonly owner: Connections
  /** Requests or handlers that have not ended. */
  inFlight = 0
  /** When it was opened, or last had something in flight. */
  quietSince: number
  /** Bytes read by then: more than that, and its peer has begun something. */
  quietBytes = 0
  /** It has had something in flight. */
  spoke = false
  /** It left its server: a WebSocket, another upgrade, a tunnel. */
  hijacked = false
  session: Session | undefined
  /** What its listener knows of the work on it. */
  work: unknown
  /** It asked for an upgrade, and got an answer instead. */
  answered = false
  /** Who was at its other end when its time had come: a closed socket does not know. */
  peer: string | undefined
  /** It was closed because its time had come. */
  expired = false
  /** When to close it, unless something happens first. */
  due = Number.POSITIVE_INFINITY
  /** What its peer had begun has been given its time. */
  private waited = false
  /** The peer of its session has been told which stream is the last. */
  told = false
  private closable = false

  constructor(socket: Socket, owner: Connections) {
    this.socket = socket
    this.carrier = socket
    this.owner = owner
    this.quietSince = now()
  }

  /** Its peer has sent the beginning of something: half a head, part of a handshake. */
  get isReading(): boolean {
    return this.session === undefined && this.bytesRead > this.quietBytes
  }

  /**
   * Over TLS both what the network brought and the plain text in it: a client may send the beginning of its request along
   * with the end of its handshake, and then only the latter grows once the handshake is done.
   */
  private get bytesRead(): number {
    const { carrier, socket } = this
    return socket === carrier ? carrier.bytesRead : carrier.bytesRead + socket.bytesRead
  }

  /** Its handshake is done, and `socket` has the plain text. */
  secure(socket: Socket): void {
    this.socket = socket
    this.quietBytes = this.bytesRead
    this.quietSince = now()
    this.waited = false
    // The drain had given the handshake its time; what comes next gets its own.
    if (this.due !== Number.POSITIVE_INFINITY) this.schedule(this.owner.timing)
  }

  /** Something has come in flight. */
  engage(): void {
    this.inFlight++
    this.spoke = true
    this.due = Number.POSITIVE_INFINITY
  }

  /** Something on it has ended. */
  settle(): void {
    if (this.inFlight === 0) return
    this.inFlight--
    if (this.inFlight > 0) return
    this.quietSince = now()
    this.quietBytes = this.bytesRead
  }

  /** When a connection with nothing in flight is to close, the drain having begun. */
  schedule(timing: Timing): void {
    if (this.isReading && !this.waited) {
      this.waited = true
      this.closeAt(now() + timing.closeTimeout)
    } else {
      this.closeAt(this.quietSince + timing.quietPeriod)
    }
  }

  closeAt(due: number): void {
    this.due = due
    this.owner.wake(due)
  }

  /** Its time has come. */
  expire(timing: Timing): void {
    if (this.inFlight > 0 && !this.hijacked) this.due = Number.POSITIVE_INFINITY
    // Its handler has come since, and will end it.
    else if (this.hijacked && this.owner.isHandled(this)) this.due = Number.POSITIVE_INFINITY
    // Its handler has given an answer, which is still on its way.
    else if (this.answered && this.socket.writableLength > 0) this.closeAt(now() + timing.closeTimeout)
    else if (!this.hijacked && this.isReading && !this.waited) this.schedule(timing)
    else {
      this.expired = true
      this.peer = this.carrier.remoteAddress
      this.close()
    }
  }

  close(): void {
    this.due = Number.POSITIVE_INFINITY
    if (this.session !== undefined && !this.socket.writableFinished) return this.endSession(this.session)
    // Over TLS the peer is told before the end, and there is a moment to write that.
    if ("encrypted" in this.socket && this.socket.writableLength === 0 && !this.socket.writableEnded) {
      this.socket.destroySoon()
      return this.closeAt(now() + 1000)
    }
    this.socket.destroy()
  }

  /**
   * Tells the peer of a session which stream was the last, and closes the session once nothing is in flight. It is not
   * closed before: of a stream that comes to a closed session Node lets go while it is still being read, which in Node
   * 22.19 writes to memory that is free. And not in this turn: the peer has to be told first.
   *
   * Then Node waits for the peer to close its own half, for ever: from when all is written it has `closeTimeout` for that.
   */
  endSession(session: Session): void {
    if (this.told) return this.closeSession(session)
    this.told = true
    session.goaway()
    const { socket } = this
    const written = () => this.closeAt(now() + this.owner.timing.closeTimeout)
    if (socket.writableFinished) written()
    else socket.once("finish", written)
    Effect.runFork(this.owner.host.turn).addObserver(() => {
      this.closable = true
      this.closeSession(session)
    })
  }

  private closeSession(session: Session): void {
    if (this.closable && this.inFlight === 0) session.close()
  }

  destroy(): void {
    this.peer = this.carrier.remoteAddress
    this.session?.destroy()
    this.socket.destroy()
    this.carrier.destroy()
  }
}

/** How long connections may take to go, in milliseconds. */
export interface Timing {
  /** How long a connection with nothing in flight has to be quiet before it closes. */
  readonly quietPeriod: number
  /** How long a peer may take to finish what it has begun. */
  readonly closeTimeout: number
}

const now = (): number => performance.now()

/** Connections that fall due within this many milliseconds of each other close together. */
const grain = 5

export class Connections {
  readonly all = new Set<Connection>()
  accepted = 0
  readonly timing: Timing
  readonly host: Process
  private readonly onClose: (connection: Connection) => void
  /** Whether a connection that left its server has a handler, which will end it. */
  readonly isHandled: (connection: Connection) => boolean
  private sweeping = false
  private next = Number.POSITIVE_INFINITY
  private earlier = Deferred.makeUnsafe<void>()

  constructor(
    timing: Timing,
    host: Process,
    onClose: (connection: Connection) => void,
    isHandled: (connection: Connection) => boolean
  ) {
    this.timing = timing
    this.host = host
    this.onClose = onClose
    this.isHandled = isHandled
  }

  /**
   * Keeps a record of every connection that `server` accepts from now on. Node's own listeners are there already, and that
   * of an HTTP/2 server tells of the session at once: the record has to be made before.
   */
  attach(server: Server, onOpen: (connection: Connection) => void): void {
    server.prependListener("connection", (socket: Socket & Keyed) => {
      this.accepted++
      const connection = new Connection(socket, this)
      this.all.add(connection)
      socket[key] = connection
      socket.on("close", closed)
      onOpen(connection)
    })
    server.prependListener("secureConnection", (socket: Socket & Keyed) => {
      const connection = socket._parent?.[key]
      if (connection === undefined) return
      connection.carrier.off("close", closed)
      connection.secure(socket)
      socket[key] = connection
      socket.on("close", closed)
    })
  }

  remove(connection: Connection): void {
    if (!this.all.delete(connection)) return
    connection.due = Number.POSITIVE_INFINITY
    // Nothing is left to wait for, so nothing may keep the process waiting.
    if (this.all.size === 0) Deferred.doneUnsafe(this.earlier, Exit.void)
    this.onClose(connection)
  }

  /** Something is due at `due`: sees to it that it is looked at then. */
  wake(due: number): void {
    if (!this.sweeping) {
      this.sweeping = true
      this.next = due
      Effect.runFork(Effect.provideService(this.sweep, Clock.Clock, Clock.Clock.defaultValue()))
    } else if (due < this.next) {
      this.next = due
      Deferred.doneUnsafe(this.earlier, Exit.void)
    }
  }

  /** Runs only while something is due. */
  private readonly sweep: Effect.Effect<void> = Effect.suspend(() => {
    this.earlier = Deferred.makeUnsafe()
    const wait = this.next - now()
    return wait > 0 ? Effect.asVoid(Effect.timeoutOption(Deferred.await(this.earlier), wait)) : Effect.void
  }).pipe(
    // What a peer has sent may still wait to be read, and counts.
    Effect.andThen(Effect.suspend(() => (this.next > now() ? Effect.void : this.host.turn))),
    Effect.andThen(
      Effect.sync(() => {
        const at = now()
        if (this.next <= at) {
          for (const connection of this.all) if (connection.due <= at) connection.expire(this.timing)
        }
        let next = Number.POSITIVE_INFINITY
        for (const connection of this.all) next = Math.min(next, connection.due)
        this.next = next === Number.POSITIVE_INFINITY ? next : Math.max(next, at + grain)
        this.sweeping = next !== Number.POSITIVE_INFINITY
        return this.sweeping
      })
    ),
    Effect.flatMap((more) => (more ? this.sweep : Effect.void))
  )
}

function closed(this: Socket & Keyed): void {
  const connection = this[key]
  if (connection !== undefined) connection.owner.remove(connection)
}

/** The record of a socket, if its server keeps one. */
export const of = (socket: unknown): Connection | undefined => (socket as Keyed | null | undefined)?.[key]
