/**
 * One handler for the connections of a socket server: what `SocketServer.run` was called with.
 *
 * Each connection has a fiber in a scope of ours, so that the drain comes first and closing the scope only interrupts
 * what is left.
 */
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import { type Connection, endpoint } from "./connection.ts"
import { CurrentHold, CurrentReleased, type Released } from "./gate.ts"
import { CurrentCarrier, Handler } from "./handler.ts"

export type OnSocket = (socket: Socket.Socket) => Effect.Effect<unknown, unknown>

export interface Options {
  /** Whether a handler runs to its own end when the drain begins, or is interrupted. */
  readonly onDrain: "wait" | "interrupt"
  /** Whether it is on a listener that drains with its own scope. */
  readonly released: boolean
  readonly began: (visit: Visit) => void
  readonly ended: (visit: Visit) => void
}

/** One connection in the hands of one handler: as long as its fiber runs, or its socket is open for reading. */
export class Visit extends Handler {
  declare readonly connection: Connection
  private readonly run: Run
  private running = true
  private opened = false
  /** How many read from it. */
  private readers = 0
  /** It has been told of as one that ended in the drain. */
  isCounted = false
  /** Where it is on a listener that drains with its own scope. */
  readonly released: Released | undefined

  constructor(fiber: Fiber.Fiber<unknown, unknown>, connection: Connection, run: Run) {
    super(fiber, connection, run.options.onDrain === "wait")
    this.run = run
    this.released = run.options.released ? { live: true } : undefined
  }

  /** What the handler's socket reads from, as long as that is open. */
  readonly open = Effect.acquireRelease(
    Effect.suspend(() => {
      const { socket } = this.connection
      if (socket.errored !== null) return failed(new Socket.SocketOpenError({ kind: "Unknown", cause: socket.errored }))
      if (socket.closed) return failed(new Socket.SocketCloseError({ code: 1000 }))
      this.opened = true
      this.readers++
      if (!this.running) this.run.adopt(this)
      return Effect.succeed(socket)
    }),
    () =>
      Effect.sync(() => {
        this.readers--
        this.connection.linger(this.isLeaving)
        this.settled()
      })
  )

  /**
   * The same socket, but that a write fails when the connection has closed, or its reader has. Effect 4.1 waits for ever to
   * write to either, and with it would the drain.
   */
  guard({ reader, writer }: Socket.Socket): Socket.Socket {
    const whileOpen = (write: Effect.Effect<void, Socket.SocketError>) =>
      Effect.suspend(() => {
        const { lingering, socket } = this.connection
        if (!lingering && !socket.destroyed) return write
        return failed(new Socket.SocketWriteError({ cause: socket.errored ?? new Error("socket closed") }))
      })
    return Socket.make({
      reader,
      writer: Effect.map(writer, ({ write, writeAll }) => ({
        write: (chunk) => whileOpen(write(chunk)),
        writeAll: (chunks) => whileOpen(writeAll(chunks))
      }))
    })
  }

  /** The handler's fiber has ended. One that has only passed its socket on leaves it to whoever reads. */
  ended(isSuccess: boolean): void {
    this.running = false
    if (!isSuccess && !this.opened) this.connection.linger(true)
    this.settled()
  }

  private settled(): void {
    if (this.running || this.readers > 0) return
    const { connection, released } = this
    if (released !== undefined) released.live = false
    connection.hear()
    if (connection.release(this)) {
      // It was to close while this handler was still at work: its peer gets that time now.
      if (connection.lingering && connection.due === undefined) connection.closeAfterFinish()
      else if (!this.opened && connection.owner.draining) connection.closeSoon()
    }
    this.run.ended(this)
    this.gone()
  }

  protected override interrupt(): void {
    if (this.running) return super.interrupt()
    // Whoever reads is not ours to interrupt.
    this.connection.release(this)
    this.connection.linger(true)
  }
}

const failed = (reason: Socket.SocketErrorReason) => Effect.fail(new Socket.SocketError({ reason }))

export class Run {
  handlers = 0
  readonly options: Options
  private readonly onSocket: OnSocket
  private readonly services: Context.Context<never>
  private readonly scope = Scope.makeUnsafe("parallel")
  private readonly visits = new Set<Visit>()
  private readonly empty = Deferred.makeUnsafe<void>()
  private ending = false

  constructor(onSocket: OnSocket, services: Context.Context<never>, options: Options) {
    this.onSocket = onSocket
    this.services = services
    this.options = options
  }

  handle(connection: Connection): void {
    connection.spoke = true
    // A closed socket does not know.
    connection.peer ??= endpoint(connection.carrier)
    const visiting = Effect.withFiber((fiber) => {
      const visit = new Visit(fiber, connection, this)
      this.handlers++
      let isSuccess = false
      fiber.addObserver(() => {
        this.handlers--
        visit.ended(isSuccess)
      })
      this.adopt(visit)
      return NodeSocket.fromDuplex(visit.open, { tlsServer: true }).pipe(
        Effect.flatMap((socket) => this.onSocket(visit.guard(socket))),
        Effect.tap(() => Effect.sync(() => void (isSuccess = true))),
        Effect.provideService(CurrentHold, visit),
        Effect.provideService(CurrentCarrier, visit),
        Effect.provideService(CurrentReleased, visit.released)
      )
    })
    visiting.pipe(
      Effect.ignoreCause({ log: "Unhandled", message: "Unhandled error in SocketServer" }),
      Effect.runForkWith(Context.add(this.services, NodeSocket.NetSocket, connection.socket)),
      Fiber.runIn(this.scope)
    )
  }

  adopt(visit: Visit): void {
    this.visits.add(visit)
    if (visit.released !== undefined) visit.released.live = true
    this.options.began(visit)
    visit.connection.adopt(visit)
    if (this.ending) visit.end()
  }

  ended(visit: Visit): void {
    this.visits.delete(visit)
    this.options.ended(visit)
    if (this.ending && this.visits.size === 0) Deferred.doneUnsafe(this.empty, Exit.void)
  }

  /** It is to end, one of several: the listener goes on for the others. */
  end(): void {
    this.ending = true
    for (const visit of Array.from(this.visits)) visit.end()
    if (this.visits.size === 0) Deferred.doneUnsafe(this.empty, Exit.void)
  }

  /** Completes when nothing is handled any more, `end` having been called. */
  get awaitEmpty(): Effect.Effect<void> {
    return Deferred.await(this.empty)
  }

  /** Interrupts what still runs. Completes when all of it has ended, which may be never. */
  close(exit: Exit.Exit<unknown, unknown> = Exit.failCause(Cause.interrupt())): Effect.Effect<void> {
    return Scope.close(this.scope, exit)
  }
}
