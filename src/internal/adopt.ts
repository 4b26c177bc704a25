/**
 * Sockets that somebody else has opened, accepted or upgraded, and hands over: each is asked to end when the drain begins,
 * and destroyed when its peer does not answer that.
 */
import * as Effect from "effect/Effect"
import type { Socket } from "node:net"
import { Duplex } from "node:stream"
import { type Adopter, type Connection, of, type Timing } from "./connections.ts"
import { handled, Hijacks, peer } from "./hijack.ts"
import { ServerListener } from "./listener.ts"
import type { Process } from "./process.ts"
import { duration } from "./report.ts"
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

const isClosed = (socket: Duplex | WebSocketLike): boolean =>
  socket instanceof Duplex ? socket.destroyed : socket.readyState === 3

/** The socket beneath a WebSocket. Private to `ws`, and pinned by a test. */
const beneath = (socket: Duplex | WebSocketLike): unknown =>
  socket instanceof Duplex ? socket : (socket as { readonly _socket?: unknown })._socket

/** Ends it in the way of its protocol. 1001 for a WebSocket, since clients do not reconnect after 1000. */
const close = (socket: Duplex | WebSocketLike): void => {
  if (!(socket instanceof Duplex)) return socket.close(1001)
  socket.end()
  // Its end is seen only by who reads to it.
  socket.resume()
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
  get writableLength(): number {
    return this.socket instanceof Duplex ? this.socket.writableLength : 0
  }
  on(event: "close", listener: () => void): this {
    this.socket.on(event, () => listener.call(this))
    return this
  }
  destroy(): void {
    if (this.socket instanceof Duplex) this.socket.destroy()
    else this.socket.terminate()
  }
}

/** One adopted socket. */
class Adoption implements Adopter {
  readonly since: number = now()
  readonly name: string | undefined
  readonly connection: Connection
  private readonly goodbye: Effect.Effect<unknown>
  private readonly socket: Duplex | WebSocketLike
  private readonly onGoodbye: (running: boolean) => void
  private isEnding = false

  constructor(
    socket: Duplex | WebSocketLike,
    connection: Connection,
    name: string | undefined,
    goodbye: Effect.Effect<unknown>,
    onGoodbye: (running: boolean) => void
  ) {
    this.socket = socket
    this.connection = connection
    this.name = name
    this.goodbye = goodbye
    this.onGoodbye = onGoodbye
  }

  end(): void {
    if (this.isEnding) return
    this.isEnding = true
    this.onGoodbye(true)
    Effect.runFork(this.goodbye).addObserver(() => {
      if (!isClosed(this.socket)) close(this.socket)
      handled(this.connection, this, true)
      this.onGoodbye(false)
    })
  }

  // It asks for no time: it has as long as its goodbye takes.
  expire(): void {}
}

export class HijackListener extends ServerListener {
  private readonly hijacks = new Hijacks(this.tally)
  private readonly adoptions = new Map<Connection, Adoption>()
  private goodbyes = 0

  constructor(name: string, timing: Timing, host: Process) {
    super("hijacked", timing, host)
    this.name = name
  }

  adopt(socket: Duplex | WebSocketLike, name: string | undefined, goodbye: Effect.Effect<unknown>): void {
    if (isClosed(socket)) return
    // One that left a listener of ours stays in its count, and is only ended from here.
    const own = of(beneath(socket))
    const connection = own?.hijacked === true ? own : this.take(socket)
    // An error without a listener would be the end of the process.
    socket.on("error", ignore)
    const adoption = new Adoption(socket, connection, name, goodbye, this.onGoodbye)
    if (connection !== own) this.adoptions.set(connection, adoption)
    if (this.state === "forced") connection.destroy()
    else connection.adopt(adoption)
  }

  private take(socket: Duplex | WebSocketLike): Connection {
    const connection = this.registry.add(new Endpoint(socket) as unknown as Socket)
    this.hijacks.take(connection)
    return connection
  }

  private readonly onGoodbye = (running: boolean): void => {
    this.goodbyes += running ? 1 : -1
    this.check()
  }

  protected onClose(connection: Connection): void {
    this.adoptions.delete(connection)
    this.hijacks.closed(connection, this.state === "draining")
    this.check()
  }

  protected onBegin(): void {
    for (const connection of this.registry.all) this.hijacks.letGo(connection)
  }

  protected onForce(): void {
    for (const connection of Array.from(this.registry.all)) {
      this.hijacks.cut(connection)
      connection.destroy()
    }
  }

  protected get handlers(): number {
    return this.goodbyes
  }
  protected get unended(): number {
    return this.goodbyes
  }
  readonly inFlight = (): number => Math.max(this.hijacks.size, this.goodbyes)

  readonly oldest = (): string | undefined => {
    // They are in the order in which they were adopted.
    for (const [connection, { name, since }] of this.adoptions) {
      return `${name ?? "socket"} from ${peer(connection)} for ${duration(now() - since)}`
    }
    return undefined
  }
}

const ignore = (): void => {}
