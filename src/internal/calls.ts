/**
 * The calls of an `RpcServer`: which are in flight, on which connection, and which of them are streams that end with the
 * drain. All of it is read off the messages of its `Protocol`.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { FromClientEncoded, FromServerEncoded, RequestEncoded, ResponseExitEncoded } from "effect/rpc/RpcMessage"
import type { Protocol } from "effect/rpc/RpcServer"
import { type Carrier, CurrentCarrier } from "./handler.ts"

type Service = Protocol["Service"]
type Receive = Parameters<Service["run"]>[0]
type Id = string | number

/** One call that has not been answered. */
interface Call {
  /** With what it ends at the drain, where it is a stream that does. */
  readonly end: ResponseExitEncoded["exit"] | undefined
  /** It has been asked to. */
  ending: boolean
}

/** One client: a connection, or over HTTP a request. */
interface Client {
  readonly carrier: Carrier | undefined
  readonly calls: Map<Id, Call>
}

export class Calls {
  private readonly inner: Service
  private readonly endOf: (tag: string) => ResponseExitEncoded["exit"] | undefined
  private readonly clients = new Map<number, Client>()
  private inFlight = 0
  private empty = Deferred.makeUnsafe<void>()

  /** `endOf` tells with what a stream ends at the drain; `undefined` for whatever is waited for. */
  constructor(inner: Service, endOf: (tag: string) => ResponseExitEncoded["exit"] | undefined) {
    this.inner = inner
    this.endOf = endOf
  }

  /**
   * The same protocol, but that its calls are told to whatever carries them. When its server is to stop it waits until
   * `drained`, since the server itself would interrupt them.
   */
  readonly protocol = (drained: Effect.Effect<void>): Service => ({
    ...this.inner,
    send: this.send,
    run: (receive) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen({ self: this }, function* () {
          // In a fiber of its own: what comes in meanwhile is still received.
          const running = yield* Effect.forkDetach(restore(this.inner.run(this.receive(receive))), {
            startImmediately: true
          })
          const exit = yield* Effect.exit(restore(Fiber.join(running)))
          yield* drained
          yield* Fiber.interrupt(running)
          return yield* exit
        })
      )
  })

  /** Completes when no call is in flight. */
  readonly awaitNone: Effect.Effect<void> = Effect.suspend(() =>
    this.inFlight === 0 ? Effect.void : Effect.andThen(Deferred.await(this.empty), this.awaitNone)
  )

  // --- What comes in ---

  private readonly receive =
    (receive: Receive): Receive =>
    (clientId, message) =>
      Effect.withFiber((fiber) => {
        const client = this.clients.get(clientId) ?? this.meet(clientId, fiber, receive)
        if (message._tag === "Request" && message.isNotification !== true) {
          return this.begin(client, clientId, message, receive)
        }
        client.carrier?.hear()
        return receive(clientId, message)
      })

  private meet(clientId: number, fiber: Fiber.Fiber<unknown, unknown>, receive: Receive): Client {
    const carrier = fiber.getRef(CurrentCarrier)
    const client: Client = { carrier, calls: new Map() }
    this.clients.set(clientId, client)
    carrier?.count()
    const context = fiber.context
    const removal = carrier?.onEnding(() => Effect.runForkWith(context)(this.endStreams(client, clientId, receive)))
    const gone = () => {
      removal?.()
      this.clients.delete(clientId)
      for (const id of Array.from(client.calls.keys())) this.settle(client, id)
    }
    if (carrier === undefined) fiber.addObserver(gone)
    else carrier.onGone(fiber, gone)
    return client
  }

  private begin(client: Client, clientId: number, request: RequestEncoded, receive: Receive): Effect.Effect<void> {
    // The server decodes a message in place.
    const { id, tag } = request
    if (!client.calls.has(id)) {
      client.calls.set(id, { end: this.endOf(tag), ending: false })
      client.carrier?.engage()
      this.inFlight++
    }
    const begun = receive(clientId, request)
    return client.carrier?.isEnding === true ? Effect.andThen(begun, this.endStreams(client, clientId, receive)) : begun
  }

  /** Interrupts the streams of a client that end with the drain. */
  private endStreams(client: Client, clientId: number, receive: Receive): Effect.Effect<void> {
    const ending: Array<FromClientEncoded> = []
    for (const [requestId, call] of client.calls) {
      if (call.end === undefined || call.ending) continue
      call.ending = true
      ending.push({ _tag: "Interrupt", requestId } as FromClientEncoded)
    }
    return Effect.forEach(ending, (message) => receive(clientId, message), { discard: true })
  }

  // --- What goes out ---

  private readonly send: Service["send"] = (clientId, response, transferables) => {
    const client = this.clients.get(clientId)
    if (client === undefined) return this.inner.send(clientId, response, transferables)
    if (response._tag === "Exit") {
      const { requestId } = response
      const call = client.calls.get(requestId)
      // For its client a stream that was ended has ended, and not failed.
      const sent = call?.ending === true && isInterruption(response.exit) ? { ...response, exit: call.end! } : response
      return Effect.ensuring(
        this.inner.send(clientId, sent as FromServerEncoded, transferables),
        Effect.sync(() => this.settle(client, requestId))
      )
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
    if (!client.calls.delete(id)) return
    client.carrier?.settle()
    this.inFlight--
    if (this.inFlight > 0) return
    Deferred.doneUnsafe(this.empty, Exit.void)
    this.empty = Deferred.makeUnsafe()
  }
}

const isInterruption = (exit: ResponseExitEncoded["exit"]): boolean =>
  exit._tag === "Failure" && exit.cause.every(({ _tag }) => _tag === "Interrupt")
