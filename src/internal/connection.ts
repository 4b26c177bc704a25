/**
 * One connection of a listener, silent, reading, active, idle or hijacked: a small record, kept on its socket under a
 * symbol. It knows when its time has come, and how it closes.
 */
import type * as Fiber from "effect/Fiber"
import type { Socket } from "node:net"
import type { Process } from "./process.ts"
import { type Due, now, type Sweep } from "./sweep.ts"

/** How long connections may take to go, in milliseconds. */
export interface Timing {
  /** How long a connection with nothing in flight has to be quiet before it closes. */
  readonly quietPeriod: number
  /** How long a peer may take to finish what it has begun. */
  readonly closeTimeout: number
}

/** Whoever keeps it. */
export interface Registry {
  readonly timing: Timing
  readonly host: Process
  readonly sweep: Sweep
  /** Those that have not gone. */
  readonly all: ReadonlySet<Connection>
  /** Whoever adopts a connection is told to end it. */
  readonly draining: boolean
  /** It has gone. */
  remove(connection: Connection): void
}

const key: unique symbol = Symbol("effect-kms/Connection")

interface Keyed {
  [key]?: Connection
}

/** What a connection closes by, where that is not its socket: an HTTP/2 session. */
export interface Closing {
  end(): void
  destroy(): void
}

/** Whoever handles a connection apart from its server, and ends it in its own way. One connection may have several. */
export interface Adopter {
  /** It is to end. May be called again. */
  end(): void
  /** The time has come that it asked for, or the connection has gone. */
  expire(): void
  readonly fiber: Fiber.Fiber<unknown, unknown> | undefined
}

export class Connection implements Due {
  /** The outermost socket: over TLS the one with the plain text. */
  socket: Socket
  /** The one that counts the bytes from the network. */
  readonly carrier: Socket
  readonly owner: Registry
  /** Requests that have not ended. */
  inFlight = 0
  /** When it was opened, or last had something in flight. */
  quietSince: number
  /** Bytes read by then: more than that, and its peer has begun something. */
  quietBytes = 0
  /** It has had something in flight. */
  spoke = false
  /** It left its server: a WebSocket, another upgrade, a tunnel. */
  hijacked = false
  private adopters: ReadonlyArray<Adopter> | undefined
  session: Closing | undefined
  /** What its listener knows of the work on it. */
  work: unknown
  /** It asked for an upgrade, and got an answer instead. */
  answered = false
  /** Who was at its other end when its time had come: a closed socket does not know. */
  peer: string | undefined
  /** It closes once all has been sent. */
  lingering = false
  /** It was closed because its time had come. */
  expired = false
  /** Something was left to be sent then. */
  unsent = false
  due: number | undefined
  /** What its peer had begun has been given its time. */
  private waited = false

  constructor(socket: Socket, owner: Registry) {
    this.socket = socket
    this.carrier = socket
    this.owner = owner
    this.quietSince = wholeNow()
    keep(socket, this)
  }

  /** Its peer has sent the beginning of something, half a head or part of a handshake, and has not been given its time. */
  get isBeginning(): boolean {
    return !this.waited && this.session === undefined && this.bytesRead > this.quietBytes
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
    keep(socket, this)
    this.rest()
    this.waited = false
    // The drain had given the handshake its time; what comes next gets its own.
    if (this.due !== undefined) this.schedule()
  }

  /** Something has come in flight. */
  engage(): void {
    this.inFlight++
    this.stir()
  }

  /** Something on it has ended. */
  settle(): void {
    if (this.inFlight === 0) return
    this.inFlight--
    if (this.inFlight === 0) this.rest()
  }

  /** It is in use, and closes when that is over. */
  stir(): void {
    this.spoke = true
    this.owner.sweep.cancel(this)
  }

  /** It is quiet from now on. */
  rest(): void {
    this.quietSince = wholeNow()
    this.hear()
  }

  /** What has been read by now is over and done with. */
  hear(): void {
    this.quietBytes = this.bytesRead
  }

  /** Someone handles it, and ends it. */
  adopt(adopter: Adopter): void {
    this.adopters = [...(this.adopters ?? []), adopter]
    this.owner.sweep.cancel(this)
    if (this.owner.draining) adopter.end()
  }

  get isAdopted(): boolean {
    return this.adopters !== undefined
  }

  /** Who handles it. */
  get fiber(): Fiber.Fiber<unknown, unknown> | undefined {
    return this.adopters?.[0]?.fiber
  }

  /** Asks those who handle it to end it. */
  end(): void {
    for (const adopter of this.adopters ?? []) adopter.end()
  }

  /** It has closed, and so nothing comes on it any more. */
  get isGone(): boolean {
    return !this.owner.all.has(this)
  }

  /** Tells those who still handle it that it has gone. */
  gone(): void {
    for (const adopter of this.adopters ?? []) adopter.expire()
  }

  /** Its handler has let go of it. Says whether nobody is left. */
  release(adopter: Adopter): boolean {
    const left = this.adopters?.filter((other) => other !== adopter) ?? []
    this.adopters = left.length === 0 ? undefined : left
    return left.length === 0
  }

  // --- Closing ---

  /** When a connection with nothing in flight is to close, the drain having begun. */
  schedule(): void {
    const due = this.quietSince + this.owner.timing.quietPeriod
    // Where its time has come already, what its peer has begun is asked in a turn, and with 10,000 only once.
    if (due > now() && this.isBeginning) this.awaitBegun()
    else this.closeAt(due)
  }

  /** Its peer has `closeTimeout` to finish what it has begun, and gets that once. */
  awaitBegun(): void {
    this.waited = true
    this.closeSoon()
  }

  closeAt(due: number): void {
    // One that has gone would only keep the process alive.
    if (!this.isGone) this.owner.sweep.put(this, due)
  }

  /** Its peer has `closeTimeout` from now on to close it. */
  closeSoon(): void {
    this.closeAt(now() + this.owner.timing.closeTimeout)
  }

  /** Its time has come. */
  expire(): void {
    // Its handler has come since, and will end it.
    if (this.adopters !== undefined) return this.adopters.forEach((adopter) => adopter.expire())
    if (this.inFlight > 0 && !this.hijacked) return
    // Its handler has given an answer, which is still on its way.
    if (this.answered && this.socket.writableLength > 0) return this.closeSoon()
    if (!this.hijacked && !this.lingering && this.isBeginning) return this.awaitBegun()
    this.expired = true
    this.unsent = this.socket.writableLength > 0
    // Nobody asks after the others, and to ask the system for each of 10,000 takes its time.
    if (this.hijacked || this.unsent) this.peer = endpoint(this.carrier)
    this.close()
  }

  close(): void {
    this.owner.sweep.cancel(this)
    if (this.session !== undefined && !this.socket.writableFinished) return this.session.end()
    // Over TLS the peer is told before the end, and there is a moment to write that.
    const isEncrypted = this.socket !== this.carrier || "encrypted" in this.socket
    if (isEncrypted && this.socket.writableLength === 0 && !this.socket.writableEnded) {
      this.socket.destroySoon()
      return this.closeAt(now() + 1000)
    }
    this.socket.destroy()
    // Its descriptor is closed by now. The event comes in a later turn, and with 10,000 of them that is a long one.
    if (!isEncrypted && !this.hijacked) this.owner.remove(this)
  }

  /**
   * Its handler has ended. What was written goes out to its last byte, and then the peer has `closeTimeout` to close its
   * half; `hurried`, it has no longer than that for both. What it still sends is read and dropped: to close with anything
   * unread would reset the connection, and what is on its way to the peer with it (RFC 1122 section 4.2.2.13).
   */
  linger(hurried: boolean): void {
    const { socket } = this
    if (socket.destroyed) return
    this.lingering = true
    socket.end()
    socket.resume()
    if (hurried) this.closeSoon()
    else this.closeAfterFinish()
  }

  /** Its peer has `closeTimeout` to close it, from when all is written. */
  closeAfterFinish(): void {
    if (this.socket.writableFinished) this.closeSoon()
    else this.socket.once("finish", finished)
  }

  destroy(): void {
    this.peer = endpoint(this.carrier)
    this.session?.destroy()
    this.socket.destroy()
    this.carrier.destroy()
  }
}

const keep = (socket: Socket & Keyed, connection: Connection): void => {
  socket[key] = connection
}

/** In whole milliseconds, none too early: a number that is not whole takes memory of its own in each record. */
const wholeNow = (): number => Math.ceil(now())

function finished(this: Socket & Keyed): void {
  this[key]?.closeSoon()
}

/** Address and port of the peer of a socket that is open. */
export const endpoint = ({ remoteAddress, remotePort }: Socket): string | undefined => {
  if (remoteAddress === undefined || remotePort === undefined) return remoteAddress
  // A listener on `::` has its IPv4 peers in this form.
  const address = remoteAddress.replace(/^::ffff:(?=\d+\.)/, "")
  return address.includes(":") ? `[${address}]:${remotePort}` : `${address}:${remotePort}`
}

/** The record of a socket, if its server keeps one. */
export const of = (socket: unknown): Connection | undefined => (socket as Keyed | null | undefined)?.[key]
