/**
 * The fiber that handles one connection: how it is told that the connection is to end, and when it may be interrupted.
 *
 * Left alone it is waited for, or interrupted once no busy section is live in it. Where somebody tells of the calls on
 * the connection (`KmsRpc`) it is interrupted once there has been none for `quietPeriod`.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Adopter, Connection } from "./connection.ts"
import type { Hold } from "./gate.ts"
import { now } from "./sweep.ts"

/** What carries calls: a connection, or a request on one. */
export interface Carrier {
  /** From now on the calls are what is in flight, and not the connection. */
  count(): void
  /** A call has begun. */
  engage(): void
  /** A call has ended. */
  settle(): void
  /** Something has come that is no call. */
  hear(): void
  /** It is to end, as soon as its calls have. */
  readonly isEnding: boolean
  /** Calls `listener` when that begins. Returns the removal. */
  onEnding(listener: () => void): () => void
  /** It has ended, and hears of nothing any more. */
  readonly isGone: boolean
  /** Calls `listener` when that is so. Returns the removal. */
  onGone(listener: () => void): () => void
}

/** What carries the calls that a fiber hears of. */
export const CurrentCarrier: Context.Reference<Carrier | undefined> = Context.Reference<Carrier | undefined>(
  "effect-kms/CurrentCarrier",
  { defaultValue: () => undefined }
)

/** Completes when a carrier begins to end; `otherwise` goes for a fiber that outlives the handler which began it. */
export const ending = (carrier: Carrier, otherwise: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (carrier.isEnding) return resume(Effect.void)
    if (carrier.isGone) return resume(otherwise)
    const removals = [carrier.onEnding(() => resume(Effect.void)), carrier.onGone(() => resume(otherwise))]
    return Effect.sync(() => removals.forEach((remove) => remove()))
  })

export class Handler implements Hold, Carrier, Adopter {
  readonly since: number = now()
  busy = 0
  isEnding = false
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly connection: Connection | undefined
  /** Whether it runs to its own end, told or not. */
  private readonly waits: boolean
  private calls = 0
  private counted = false
  /** It is to be interrupted as soon as it may be. */
  protected isLeaving = false
  isGone = false
  private listeners: Set<() => void> | undefined
  private mourners: Set<() => void> | undefined

  constructor(fiber: Fiber.Fiber<unknown, unknown>, connection: Connection | undefined, waits: boolean) {
    this.fiber = fiber
    this.connection = connection
    this.waits = waits
  }

  /** How much is in flight. */
  get inFlight(): number {
    return this.counted ? this.calls : 1
  }

  /** Whether it may be interrupted, busy sections aside. */
  protected get isLeavable(): boolean {
    return true
  }

  // --- Its end ---

  end(): void {
    if (this.isEnding) return
    this.isEnding = true
    for (const listener of this.listeners ?? []) listener()
    if (!this.counted) {
      if (!this.waits) this.leave()
    } else if (this.calls === 0) this.quieten()
  }

  private quieten(): void {
    const { connection } = this
    if (connection === undefined || connection.isGone) this.leave()
    else connection.schedule()
  }

  expire(): void {
    const { connection } = this
    if (!this.counted || this.calls > 0 || !this.isEnding) return
    if (connection === undefined || connection.isGone) return this.leave()
    // Its last answers are still on their way to a slow peer: a WebSocket takes them without waiting.
    if (connection.socket.writableLength > 0) {
      connection.rest()
      return connection.schedule()
    }
    if (connection.isBeginning) connection.awaitBegun()
    else this.leave()
  }

  private leave(): void {
    this.isLeaving = true
    this.onIdle()
  }

  protected interrupt(): void {
    this.fiber.interruptUnsafe()
  }

  /** A busy section inside has ended, or something else that kept it. */
  onIdle(): void {
    if (this.isLeaving && this.busy === 0 && this.isLeavable) this.interrupt()
  }

  // --- Calls ---

  count(): void {
    if (this.counted) return
    this.counted = true
    // Told to leave before its calls were counted: from now on they say when.
    this.isLeaving = false
    this.connection?.rest()
    if (this.isEnding) this.quieten()
  }

  engage(): void {
    this.calls++
    this.connection?.stir()
  }

  settle(): void {
    if (this.calls === 0) return
    this.calls--
    if (this.calls > 0) return
    this.connection?.rest()
    if (this.isEnding) this.quieten()
  }

  hear(): void {
    if (this.calls === 0) this.connection?.hear()
  }

  onEnding(listener: () => void): () => void {
    const listeners = (this.listeners ??= new Set())
    listeners.add(listener)
    return () => listeners.delete(listener)
  }

  onGone(listener: () => void): () => void {
    const listeners = (this.mourners ??= new Set())
    listeners.add(listener)
    return () => listeners.delete(listener)
  }

  /** To be called when it has ended. */
  gone(): void {
    this.isGone = true
    for (const listener of this.mourners ?? []) listener()
  }
}
