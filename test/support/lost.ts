/**
 * One stop of a server under load, and what its clients lost by it. Server, clients and proxy are processes.
 */
import { Effect, Option } from "effect"
import type { Counted, Hammering } from "./hammer.ts"
import type { Hammered } from "./hammered.ts"
import { beside, type Ended, start } from "./program.ts"
import type { Proxying } from "./proxy.ts"

export interface Load extends Omit<Hammering, "port">, Partial<Omit<Hammered, "protocol">> {
  /** Milliseconds that a proxy between them adds each way. */
  readonly delay?: number | undefined
}

export interface Stop {
  readonly counted: Counted
  /** How the server ended; nothing where it had to be killed, its clients having gone. */
  readonly server: Ended | undefined
  readonly output: string
  /** From SIGTERM to the end of the server, in milliseconds. */
  readonly millis: number
}

/** Starts a server, loads it, and stops it `moment` milliseconds after every client has become busy. */
export const stop = (load: Load, moment = 0): Effect.Effect<Stop> =>
  Effect.gen(function* () {
    const { connections, delay, kind = "effect-kms", lameDuck = 0, protocol, quietPeriod, think } = load
    const hammered: Hammered = { kind, protocol, lameDuck, quietPeriod }
    const server = yield* start(beside(import.meta.url, "hammered.ts"), { args: [JSON.stringify(hammered)] })
    let port = Number((yield* server.printed(/^port (\d+)$/m))[1])
    if (delay !== undefined) {
      const proxying: Proxying = { port, delay }
      const proxy = yield* start(beside(import.meta.url, "proxy.ts"), { args: [JSON.stringify(proxying)] })
      port = Number((yield* proxy.printed(/^port (\d+)$/m))[1])
    }
    const hammering: Hammering = { port, protocol, connections, think }
    const hammer = yield* start(beside(import.meta.url, "hammer.ts"), { args: [JSON.stringify(hammering)] })
    yield* hammer.printed(/^busy$/m)
    if (moment > 0) yield* Effect.sleep(moment)

    // Clients that nobody has sent away by then are stopped; and a server that then still runs is killed.
    // Not before the default deadline of effect-kms, at which it cuts what is left.
    const patience = (kind === "effect-kms" ? 25_000 : 3000) + lameDuck + think[1]
    const at = performance.now()
    yield* server.kill("SIGTERM")
    if (Option.isNone(yield* Effect.timeoutOption(hammer.ended, patience))) yield* hammer.kill("SIGTERM")
    const counted = JSON.parse((yield* hammer.printed(/^counted (.*)$/m))[1]!) as Counted
    const ended = Option.getOrUndefined(yield* Effect.timeoutOption(server.ended, patience))
    return { counted, server: ended, output: server.output(), millis: (ended?.at ?? performance.now()) - at }
  }).pipe(Effect.scoped)
