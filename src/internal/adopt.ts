/**
 * Sockets that somebody else has opened, accepted or upgraded, and hands over: each is asked to end when the drain begins,
 * and destroyed when its peer does not answer that.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import { type Adopter, type Connection, of, type Timing } from "./connection.ts"
import type { Held } from "./held.ts"
import { handled, Hijack, Hijacks } from "./hijack.ts"
import { ServerListener } from "./listener.ts"
import type { Process } from "./process.ts"
import { now } from "./sweep.ts"

/**
 * What is used of a WebSocket: that of `ws`, or one that is like it.
 *
 * @category models
 * @since 0.1.0
 */
export interface WebSocketLike {
  readonly readyState: number
  readonly close: (code?: number, reason?: string) => void
  readonly terminate: () => void
  readonly on: (event: "close" | "error", listener: () => void) => unknown
}

const isWebSocket = (socket: Duplex | WebSocketLike): socket is WebSocketLike => "terminate" in socket

const isClosed = (socket: Duplex | WebSocketLike): boolean =>
  isWebSocket(socket) ? socket.readyState === 3 : socket.destroyed

/** The socket beneath a WebSocket. Private to `ws`, and pinned by a test. */
const beneath = (socket: Duplex | WebSocketLike): unknown =>
  isWebSocket(socket) ? (socket as { readonly _socket?: unknown })._socket : socket

/** Ends it in the way of its protocol. 1001 for a WebSocket, since clients do not reconnect after 1000. */
const close = (socket: Duplex | WebSocketLike): void => {
  if (isWebSocket(socket)) return socket.close(1001)
  socket.end()
  // Its end is seen only by who reads to it.
  socket.resume()
}

/** Somebody else's code may throw, and keeps nobody from the rest. */
const attempt = (f: () => void): void => {
  try {
    f()
  } catch (error) {
    Effect.runFork(Effect.logWarning("A hijacked socket could not be closed", error))
  }
}

/** What a `Connection` uses of a socket that has left its server, of anything that can be adopted. */
class Endpoint {
  readonly bytesRead = 0
  private readonly socket: Duplex | WebSocketLike

  constructor(socket: Duplex | WebSocketLike) {
    this.socket = socket
  }

  get remoteAddress(): string | undefined {
    return (beneath(this.socket) as Partial<Socket> | undefined)?.remoteAddress
  }
  get remotePort(): number | undefined {
    return (beneath(this.socket) as Partial<Socket> | undefined)?.remotePort
  }
  get writableLength(): number {
    return isWebSocket(this.socket) ? 0 : this.socket.writableLength
  }
  on(event: "close", listener: () => void): this {
    this.socket.on(event, () => listener.call(this))
    return this
  }
  destroy(): void {
    const { socket } = this
    attempt(() => (isWebSocket(socket) ? socket.terminate() : void socket.destroy()))
  }
}

/** One adopted socket. */
class Adoption implements Adopter {
  readonly since: number = now()
  readonly name: string | undefined
  readonly connection: Connection
  private readonly goodbye: Effect.Effect<unknown>
  private readonly socket: Duplex | WebSocketLike
  private readonly onGoodbye: (adoption: Adoption, running: boolean) => void
  fiber: Fiber.Fiber<unknown> | undefined
  private isEnding = false

  constructor(
    socket: Duplex | WebSocketLike,
    connection: Connection,
    name: string | undefined,
    goodbye: Effect.Effect<unknown>,
    onGoodbye: (adoption: Adoption, running: boolean) => void
  ) {
    this.socket = socket
    this.connection = connection
    this.name = name
    this.goodbye = goodbye
    this.onGoodbye = onGoodbye
  }

  get isClosed(): boolean {
    return isClosed(this.socket)
  }

  end(): void {
    if (this.isEnding) return
    this.isEnding = true
    this.onGoodbye(this, true)
    this.fiber = Effect.runFork(this.goodbye)
    this.fiber.addObserver(() => {
      handled(this.connection, this, true)
      // Whoever else has adopted it has something to say, too.
      if (!this.connection.isAdopted && !isClosed(this.socket)) attempt(() => close(this.socket))
      this.onGoodbye(this, false)
    })
  }

  /** Its goodbye has taken too long. */
  cut(): void {
    this.fiber?.interruptUnsafe()
  }

  // It asks for no time: it has as long as its goodbye takes.
  expire(): void {}
}

export class HijackListener extends ServerListener {
  private readonly hijacks = new Hijacks(this.tally)
  private readonly adoptions = new Set<Adoption>()
  /** The records of sockets that are not a listener's of ours. */
  private readonly foreign = new WeakMap<Duplex | WebSocketLike, Connection>()
  /** Those whose goodbye is being said. */
  private readonly leaving = new Set<Adoption>()

  constructor(name: string, timing: Timing, host: Process) {
    super("hijacked", timing, host)
    this.name = name
  }

  adopt(socket: Duplex | WebSocketLike, name: string | undefined, goodbye: Effect.Effect<unknown>): void {
    // An error without a listener would be the end of the process.
    socket.on("error", ignore)
    if (isClosed(socket)) return
    // One that left a listener of ours, or is in the hands of its handler, stays in its count, and is only ended from here.
    const own = of(beneath(socket))
    const isOwn = own !== undefined && (own.hijacked || own.isAdopted)
    const connection = isOwn ? own : (this.foreign.get(socket) ?? this.take(socket))
    const adoption = new Adoption(socket, connection, name, goodbye, this.onGoodbye)
    this.adoptions.add(adoption)
    socket.on("close", () => this.adoptions.delete(adoption))
    if (this.state === "forced") return connection.destroy()
    if (name !== undefined && connection.work instanceof Hijack) connection.work.name = name
    connection.adopt(adoption)
    // Its own listener may not drain yet.
    if (isOwn && this.state === "draining") adoption.end()
  }

  private take(socket: Duplex | WebSocketLike): Connection {
    const connection = this.registry.add(new Endpoint(socket) as unknown as Socket)
    this.foreign.set(socket, connection)
    this.hijacks.take(connection, "socket")
    return connection
  }

  private readonly onGoodbye = (adoption: Adoption, running: boolean): void => {
    if (running) this.leaving.add(adoption)
    else this.leaving.delete(adoption)
    this.worked()
  }

  protected onClose(connection: Connection): void {
    this.hijacks.closed(connection, this.state === "draining")
    this.worked()
  }

  protected onBegin(): void {
    for (const adoption of Array.from(this.adoptions)) adoption.end()
  }

  protected onForce(): void {
    for (const connection of Array.from(this.registry.all)) {
      this.hijacks.cut(connection)
      connection.destroy()
    }
    for (const adoption of Array.from(this.adoptions)) adoption.cut()
  }

  protected get handlers(): number {
    return this.leaving.size
  }
  protected get unended(): number {
    return this.leaving.size
  }
  readonly inFlight = (): number => Math.max(this.hijacks.size, this.leaving.size)

  protected works(): Array<Held> {
    const open = Array.from(this.adoptions).filter(
      ({ connection, isClosed }) => connection.owner === this.registry && !isClosed
    )
    const leaving = Array.from(this.leaving).filter(({ isClosed }) => isClosed)
    return [...open, ...leaving].map(adopted)
  }
}

const adopted = ({ connection, fiber, name, since }: Adoption): Held => {
  return { what: name ?? "socket", connection, since, fiber }
}

const ignore = (): void => {}
