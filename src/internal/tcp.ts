/**
 * The connections of a TCP, TLS or Unix-domain server, under a drain: who handles each, and when it may close.
 *
 * A connection is ready once its peer can be heard: over TLS after the handshake. Then it goes to the `Run` that was
 * started last and is still open, or waits for the first.
 */
import type { Server, Socket } from "node:net"
import { type Connection, of, type Timing } from "./connection.ts"
import { type Held, peer, work } from "./held.ts"
import { ServerListener } from "./listener.ts"
import { Parts } from "./parts.ts"
import type { Process } from "./process.ts"
import type { Run, Visit } from "./run.ts"
import { cut } from "./text.ts"

export interface Options {
  readonly kind: string
  /** What tells of a connection that is ready. */
  readonly event: "connection" | "secureConnection"
  readonly timing: Timing
  readonly host: Process
  readonly onForce: () => void
}

export class SocketListener extends ServerListener {
  private readonly options: Options
  readonly runs = new Parts<Run>()
  /** Connections that are ready, and that nobody handles yet. */
  private readonly waiting = new Set<Connection>()
  /** Connections that somebody handles. */
  private readonly visits = new Set<Visit>()

  constructor(server: Server, options: Options) {
    super(options.kind, options.timing, options.host)
    this.options = options
    // Added before the registry puts its own in front.
    server.on(options.event, (socket: Socket) => this.onReady(socket))
    // A handshake that fails leaves its socket to whoever listens.
    server.on("tlsClientError", (_, socket) => socket.destroy())
    this.registry.attach(server, (connection) => this.onOpen(connection))
  }

  // --- Connections ---

  private onOpen(connection: Connection): void {
    // An error without a listener would be the end of the process; whoever handles it sees `errored`.
    connection.socket.on("error", ignore)
    if (this.state === "forced") connection.destroy()
    // A handshake begins as the drain does.
    else if (this.state === "draining" && this.options.event !== "connection") connection.schedule()
  }

  private onReady(socket: Socket): void {
    const connection = of(socket)
    if (connection === undefined) return
    socket.on("error", ignore)
    // Nothing is to be read before a handler asks for it.
    socket.pause()
    const run = this.runs.current
    if (run !== undefined) run.handle(connection)
    else if (this.isDraining) connection.linger(true)
    else this.waiting.add(connection)
  }

  protected onClose(connection: Connection): void {
    this.waiting.delete(connection)
    if (this.state === "draining" && connection.unsent) this.cutShort(connection)
    // Whoever reads from it hears of its end later, and may have something to hand on then.
    if (connection.isAdopted) this.worked()
    else this.check()
  }

  /** Its handler has ended, and not all that it wrote has been sent. */
  private cutShort(connection: Connection): void {
    this.tally.note(`what was still to be sent to ${peer(connection)}`)
  }

  // --- Handlers ---

  /** Takes connections from now on. */
  add(run: Run): void {
    this.runs.add(run)
    for (const connection of Array.from(this.waiting)) run.handle(connection)
    this.waiting.clear()
  }

  readonly began = (visit: Visit): void => void this.visits.add(visit)

  readonly ended = (visit: Visit): void => {
    if (this.visits.delete(visit) && this.state === "draining" && !visit.isCounted) {
      visit.isCounted = true
      this.tally.drained++
    }
    this.worked()
  }

  // --- The drain ---

  protected onBegin(): void {
    // Also those whose connection has gone: their handlers may still run.
    for (const visit of Array.from(this.visits)) visit.end()
    for (const connection of this.registry.all) {
      if (connection.isAdopted) connection.end()
      else if (this.waiting.delete(connection)) connection.linger(true)
      // Its handshake is under way.
      else if (!connection.spoke) connection.schedule()
      // Its handler has ended, and has left it to nobody.
      else if (!connection.lingering) connection.closeSoon()
    }
  }

  protected onForce(): void {
    for (const visit of this.visits) this.tally.note(cut(work(visited(visit))))
    for (const connection of Array.from(this.registry.all)) {
      if (!connection.isAdopted && connection.socket.writableLength > 0) this.cutShort(connection)
      connection.destroy()
    }
    this.options.onForce()
  }

  // --- What it says of itself ---

  protected get handlers(): number {
    return this.runs.handlers
  }
  protected get unended(): number {
    return this.runs.unended
  }

  readonly inFlight = (): number => {
    let sum = 0
    for (const visit of this.visits) sum += visit.inFlight
    return sum
  }

  // Of those that are waited for the connection may have gone as well.
  protected works(): Array<Held> {
    return Array.from(this.visits)
      .filter(({ inFlight }) => inFlight > 0)
      .map(visited)
  }
}

const visited = ({ connection, fiber, since }: Visit): Held => ({ what: "connection", connection, since, fiber })

const ignore = (): void => {}
