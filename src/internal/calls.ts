/**
 * The calls of an `RpcServer`: which are in flight, on which connection, which of them are streams that end with the
 * drain, and until when new ones are taken. All of it is read off the messages of its `Protocol`.
 *
 * Once the drain has begun a client may go on calling for `quietPeriod`, counted from the last call that it had made
 * before. Without an end to that a client that calls without pause would never be quiet, and be cut in the middle of a
 * call at the deadline. What it calls after that is not handed to the server; it fails at the client when the connection
 * ends, which it does as soon as the calls that were taken have been answered.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import type { FromClientEncoded, FromServerEncoded, RequestEncoded, ResponseExitEncoded } from "effect/rpc/RpcMessage"
import type { Protocol } from "effect/rpc/RpcServer"
import type { Connection } from "./connection.ts"
import { CurrentHold, type Hold } from "./gate.ts"
import { type Carrier, CurrentCarrier, Handler } from "./handler.ts"
import { now } from "./sweep.ts"

type Service = Protocol["Service"]
type Receive = Parameters<Service["run"]>[0]
type Id = string | number
type Encoded = ResponseExitEncoded["exit"]

/** What the calls of one tag may end with, as their protocol says it. */
export interface Exits {
  /** Whether it is a stream that ends with the drain. */
  readonly ends: boolean
  /** With what it does; `undefined` where its client is told by the end of the connection. */
  readonly end: Encoded | undefined
  /** Of a call that was not taken. */
  readonly refused: Encoded
  /** Whether it is that of a call that was interrupted. */
  readonly isInterruption: (exit: Encoded) => boolean
}

/** One call that has not been answered. */
interface Call {
  /** Where it is a stream that ends with the drain. */
  readonly stream: Stream | undefined
  /** It was there when the drain began. */
  early: boolean
}

/** A stream that ends with the drain, and the busy sections in it: they are not cut short, and count on its connection, too. */
class Stream implements Hold {
  readonly exits: Exits
  /** The server knows of it: before, there is nothing to interrupt. */
  begun = false
  /** It has been asked to end. */
  ending = false
  private readonly client: Client
  private readonly outer: Hold | undefined
  private sections = 0

  constructor(exits: Exits, client: Client, outer: Hold | undefined) {
    this.exits = exits
    this.client = client
    this.outer = outer
  }

  get busy(): number {
    return this.sections
  }
  set busy(sections: number) {
    if (this.outer !== undefined) this.outer.busy += sections - this.sections
    this.sections = sections
  }

  onIdle(): void {
    if (this.client.since !== undefined) this.client.end()
    if (this.outer?.busy === 0) this.outer.onIdle()
  }

  get isEndable(): boolean {
    return this.begun && !this.ending && this.sections === 0
  }
}

/** One client: a connection, or over HTTP a request. */
interface Client {
  readonly id: number
  readonly carrier: Carrier | undefined
  readonly calls: Map<Id, Call>
  /** Where it is one: a request is over with its calls by itself. */
  readonly connection: Connection | undefined
  /** How many calls are left of those that were there when the drain began. */
  early: number
  /** When the drain began, or the last of these calls ended. */
  since: number | undefined
  /** From now on no call is taken: soon, or at once. */
  closing: boolean
  closed: boolean
  /** Lets its streams end. */
  readonly end: () => void
  /** Takes back that its carrier tells of its end. */
  readonly forget: (() => void) | undefined
}

export class Calls {
  private readonly inner: Service
  private readonly exitsOf: (tag: string) => Exits | undefined
  private readonly clients = new Map<number, Client>()
  /** Clients that have gone, for the server. */
  private readonly disconnects: Queue.Queue<number>
  private deliver: Receive = () => Effect.void
  private inFlight = 0
  private empty = Deferred.makeUnsafe<void>()
  /** Its server stops while its connections go on. */
  private finishing = false

  /** `exitsOf` tells of the calls with a tag; `undefined` where the server knows of none. */
  static readonly make = (inner: Service, exitsOf: (tag: string) => Exits | undefined): Effect.Effect<Calls> =>
    Effect.map(Queue.unbounded<number>(), (disconnects) => new Calls(inner, exitsOf, disconnects))

  private constructor(inner: Service, exitsOf: (tag: string) => Exits | undefined, disconnects: Queue.Queue<number>) {
    this.inner = inner
    this.exitsOf = exitsOf
    this.disconnects = disconnects
  }

  /**
   * The same protocol, but that its calls are told to whatever carries them. When its server is to stop it waits until
   * `drained`, since the server itself would interrupt them.
   */
  readonly protocol = (drained: Effect.Effect<void>): Service => ({
    ...this.inner,
    disconnects: this.disconnects,
    send: this.send,
    run: (receive) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen({ self: this }, function* () {
          this.start(receive)
          // In a fiber of its own: what comes in meanwhile is still received.
          const running = yield* Effect.forkDetach(
            restore(Effect.andThen(Effect.forkChild(this.forgetting), this.inner.run(this.receive))),
            { startImmediately: true }
          )
          const exit = yield* Effect.exit(restore(Fiber.join(running)))
          yield* drained
          yield* Fiber.interrupt(running)
          return yield* exit
        })
      )
  })

  private start(receive: Receive): void {
    this.deliver = receive
    if (!this.finishing) return
    // Another one had stopped.
    this.finishing = false
    for (const client of this.clients.values()) if (client.carrier?.isEnding !== true) client.since = undefined
  }

  /**
   * Completes when no call is in flight. For whoever has no connections to close: streams end, and a client whose calls
   * have been answered is taken no new ones from.
   */
  readonly finish: Effect.Effect<void> = Effect.suspend(() => {
    this.finishing = true
    const clients = Array.from(this.clients.values())
    return Effect.andThen(
      Effect.forEach(clients, (client) => this.drain(client), { discard: true }),
      this.awaitNone
    )
  })

  private readonly awaitNone: Effect.Effect<void> = Effect.suspend(() =>
    this.inFlight === 0 ? Effect.void : Effect.andThen(Deferred.await(this.empty), this.awaitNone)
  )

  // --- Clients ---

  private meet(id: number, fiber: Fiber.Fiber<unknown, unknown>): Client {
    const carrier = fiber.getRef(CurrentCarrier)
    const end = () => void Effect.runForkWith(fiber.context)(this.drain(client))
    const client: Client = {
      id,
      carrier,
      calls: new Map(),
      connection: carrier instanceof Handler ? carrier.connection : undefined,
      early: 0,
      since: this.finishing || carrier?.isEnding === true ? now() : undefined,
      closing: false,
      closed: false,
      end,
      forget: carrier?.onEnding(end)
    }
    this.clients.set(id, client)
    carrier?.count()
    return client
  }

  /** Hears of the clients that have gone. Nobody is told of their calls: what carried them has gone, too. */
  private readonly forgetting: Effect.Effect<never> = Effect.suspend(() => Queue.take(this.inner.disconnects)).pipe(
    Effect.flatMap((id) => {
      const client = this.clients.get(id)
      this.clients.delete(id)
      client?.forget?.()
      for (let left = client?.calls.size ?? 0; left > 0; left--) this.ended()
      // The answer to one of them may still be on its way, and fail.
      client?.calls.clear()
      return Queue.offer(this.disconnects, id)
    }),
    Effect.forever
  )

  /** The drain begins for a client. */
  private drain(client: Client): Effect.Effect<void> {
    if (client.since === undefined) {
      client.since = now()
      client.early = client.calls.size
      for (const call of client.calls.values()) call.early = true
    }
    return this.endStreams(client)
  }

  /** Whether a call that comes now is taken. */
  private takes(client: Client): boolean {
    const { connection, early, since } = client
    if (since === undefined || early > 0) return true
    if (this.finishing || client.closed) return false
    if (connection !== undefined && now() >= since + connection.owner.timing.quietPeriod) this.close(client, connection)
    return true
  }

  /** What its peer has sent may still wait to be read, and counts: a turn later nothing more is taken. */
  private close(client: Client, { owner }: Connection): void {
    if (client.closing) return
    client.closing = true
    Effect.runFork(owner.host.turn).addObserver(() => void (client.closed = true))
  }

  // --- What comes in ---

  private readonly receive: Receive = (clientId, message) =>
    Effect.withFiber((fiber) => {
      const client = this.clients.get(clientId)
      if (message._tag === "Request" && message.isNotification !== true) {
        return this.begin(client ?? this.meet(clientId, fiber), message, fiber.getRef(CurrentHold))
      }
      const received = this.deliver(clientId, message)
      // Not before: the answer to a ping may take a while, and a call may have come along with the ping.
      return client !== undefined && client.calls.size > 0
        ? received
        : Effect.andThen(received, heard(fiber.getRef(CurrentCarrier)))
    })

  private begin(client: Client, request: RequestEncoded, hold: Hold | undefined): Effect.Effect<void> {
    // The server decodes a message in place.
    const { id, tag } = request
    const exits = this.exitsOf(tag)
    if (!this.takes(client)) return this.refuse(client, request, exits)
    const stream = exits?.ends === true ? new Stream(exits, client, hold) : undefined
    if (!client.calls.has(id)) {
      client.calls.set(id, { stream, early: false })
      client.carrier?.engage()
      this.inFlight++
    }
    if (stream === undefined) return this.deliver(client.id, request)
    return Effect.andThen(
      Effect.provideService(this.deliver(client.id, request), CurrentHold, stream),
      Effect.suspend(() => {
        stream.begun = true
        return client.since === undefined ? Effect.void : this.endStreams(client)
      })
    )
  }

  /** It is not executed. The end of its connection tells its caller so in a way that can be told from a failure. */
  private refuse(client: Client, request: RequestEncoded, exits: Exits | undefined): Effect.Effect<void> {
    if (!this.finishing) return heard(client.carrier)
    // Here there may be no such end. What nobody knows the server answers at once.
    return exits === undefined
      ? this.deliver(client.id, request)
      : this.inner.send(client.id, { _tag: "Exit", requestId: request.id, exit: exits.refused })
  }

  /** Interrupts the streams of a client that end with the drain. */
  private endStreams(client: Client): Effect.Effect<void> {
    const ending: Array<FromClientEncoded> = []
    for (const [requestId, { stream }] of client.calls) {
      if (stream?.isEndable !== true) continue
      stream.ending = true
      ending.push({ _tag: "Interrupt", requestId })
    }
    return Effect.forEach(ending, (message) => Effect.exit(this.deliver(client.id, message)), { discard: true })
  }

  // --- What goes out ---

  private readonly send: Service["send"] = (clientId, response, transferables) => {
    const client = this.clients.get(clientId)
    if (client === undefined) return this.inner.send(clientId, response, transferables)
    if (response._tag === "Exit") {
      const { exit, requestId } = response
      const stream = client.calls.get(requestId)?.stream
      const settle = Effect.sync(() => this.settle(client, requestId))
      let sent: FromServerEncoded = response
      if (stream?.ending === true && stream.exits.isInterruption(exit)) {
        const { end } = stream.exits
        if (end === undefined) return settle
        // For its client it has ended, and not failed.
        sent = { ...response, exit: end }
      }
      return Effect.ensuring(this.inner.send(clientId, sent, transferables), settle)
    }
    const sent = this.inner.send(clientId, response, transferables)
    if (response._tag !== "Defect") return sent
    // The end of every call, for its client.
    return Effect.ensuring(
      sent,
      Effect.sync(() => {
        for (const id of Array.from(client.calls.keys())) this.settle(client, id)
      })
    )
  }

  private settle(client: Client, id: Id): void {
    const call = client.calls.get(id)
    if (call === undefined) return
    client.calls.delete(id)
    if (call.early && --client.early === 0) client.since = now()
    client.carrier?.settle()
    this.ended()
  }

  private ended(): void {
    this.inFlight--
    if (this.inFlight > 0) return
    Deferred.doneUnsafe(this.empty, Exit.void)
    this.empty = Deferred.makeUnsafe()
  }
}

/** Something has come that is no call. */
const heard = (carrier: Carrier | undefined): Effect.Effect<void> => Effect.sync(() => carrier?.hear())
