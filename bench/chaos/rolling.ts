/**
 * A rolling restart of two servers under load, again and again: one gets SIGTERM, is waited for, started anew, and has to
 * serve before it is the turn of the other. Everything that happens is noted with its time, so that a failure which a client
 * has seen can be laid beside it.
 */
import { Effect, Exit, Option, Scope } from "effect"
import { beside, type Ended, type Options, type Program, start } from "../../test/support/program.ts"
import { type Counted, type Failure, now } from "./ledger.ts"
import type { Load } from "./load.ts"
import type * as Random from "./random.ts"
import type { Serving, Told } from "./server.ts"

/** One restart, as planned. */
export interface Step {
  readonly slot: 0 | 1
  /** Milliseconds to wait first: a moment in the life of the clients, which nobody could know beforehand. */
  readonly pause: number
  readonly lameDuck: number
  /** Whether the next one is started before the old one is told to stop. */
  readonly surge: boolean
}

export const plan = (
  random: Random.Random,
  restarts: number,
  { lameDucks, surges }: { readonly lameDucks: readonly [number, ...Array<number>]; readonly surges: boolean }
): ReadonlyArray<Step> =>
  Array.from({ length: restarts }, (_, index) => ({
    slot: (index % 2) as 0 | 1,
    pause: random.between(0, 150),
    lameDuck: random.pick(lameDucks),
    surge: surges && random.chance(0.5)
  }))

/** One life of a server, with the times of what happened in it. */
export interface Life {
  readonly slot: 0 | 1
  readonly lameDuck: number
  readonly served: number
  signalled: number | undefined
  draining: number | undefined
  ended: number | undefined
  exit: Ended | undefined
  told: Told | undefined
}

export interface Rolled {
  readonly lives: ReadonlyArray<Life>
  readonly counted: Counted
  readonly failures: ReadonlyArray<Failure>
  readonly millis: number
}

/** Where the two servers are, and how each is started. */
export interface Ground {
  readonly serving: (slot: 0 | 1) => Pick<Serving, "host" | "ports" | "reusePort" | "quietPeriod" | "breakage">
  /** Runs programs elsewhere than here. */
  readonly options?: Pick<Options, "command"> | undefined
  /** Told of each server that listens, before any client is there. */
  readonly listening: (slot: 0 | 1, ports: readonly [number, number, number]) => void
}

const patience = 20_000

interface Running {
  readonly program: Program
  readonly life: Life
  readonly scope: Scope.Closeable
}

const launch = Effect.fnUntraced(function* (ground: Ground, slot: 0 | 1, lameDuck: number) {
  // Closed when it has been stopped, or with everything else when this is interrupted.
  const scope = yield* Scope.fork(yield* Effect.scope)
  const serving: Serving = { ...ground.serving(slot), lameDuck }
  const program = yield* Scope.provide(
    start(beside(import.meta.url, "server.ts"), { ...ground.options, args: [JSON.stringify(serving)] }),
    scope
  )
  const [, http, http2, health] = yield* program.printed(/^listening (\d+) (\d+) (\d+)$/m)
  const life: Life = {
    slot,
    lameDuck,
    served: now(),
    signalled: undefined,
    draining: undefined,
    ended: undefined,
    exit: undefined,
    told: undefined
  }
  ground.listening(slot, [Number(http), Number(http2), Number(health)])
  return { program, life, scope } satisfies Running
})

const stop = Effect.fnUntraced(function* ({ life, program, scope }: Running) {
  life.signalled = now()
  yield* program.kill("SIGTERM")
  life.exit = Option.getOrUndefined(yield* Effect.timeoutOption(program.ended, patience + life.lameDuck))
  life.ended = now()
  const output = program.output()
  const draining = /^draining (.*)$/m.exec(output)
  if (draining !== null) life.draining = Number(draining[1])
  const told = /^told (.*)$/m.exec(output)
  if (told !== null) life.told = JSON.parse(told[1]!) as Told
  yield* Scope.close(scope, Exit.void)
})

const serves = ({ program }: Running) => Effect.timeout(program.printed(/^serving /m), patience)

/** Starts both servers, then `begin` gives the load, then restarts as `steps` say. */
export const roll = <E>(
  ground: Ground,
  steps: ReadonlyArray<Step>,
  begin: Effect.Effect<Load, E, Scope.Scope>,
  progress: (done: number) => void
) =>
  Effect.gen(function* () {
    const lives: Array<Life> = []
    const running: [Running, Running] = [
      yield* launch(ground, 0, lameDuckOf(steps, 0, -1)),
      yield* launch(ground, 1, lameDuckOf(steps, 1, -1))
    ]
    const load = yield* begin
    const clients = yield* start(beside(import.meta.url, "clients/main.ts"), {
      ...ground.options,
      args: [JSON.stringify(load)]
    })
    const began = now()
    yield* Effect.timeout(clients.printed(/^busy$/m), patience)
    yield* Effect.all(running.map(serves))
    for (const [index, { pause, slot, surge }] of steps.entries()) {
      yield* Effect.sleep(pause)
      const old = running[slot]
      lives.push(old.life)
      const lameDuck = lameDuckOf(steps, slot, index)
      if (surge) running[slot] = yield* launch(ground, slot, lameDuck)
      yield* stop(old)
      if (!surge) running[slot] = yield* launch(ground, slot, lameDuck)
      yield* serves(running[slot])
      progress(index + 1)
    }
    // The clients end first, so that nothing of theirs is lost by the end of the servers.
    yield* clients.kill("SIGTERM")
    const [, counted] = yield* Effect.timeout(clients.printed(/^counted (.*)$/m), patience)
    const millis = now() - began
    for (const last of running) {
      yield* stop(last)
      lives.push(last.life)
    }
    const failures = Array.from(
      clients.output().matchAll(/^failed (.*)$/gm),
      ([, json]) => JSON.parse(json!) as Failure
    )
    return { lives, counted: JSON.parse(counted!) as Counted, failures, millis } satisfies Rolled
  }).pipe(Effect.scoped)

/** A server is started with the lame duck of the step that will stop it. */
const lameDuckOf = (steps: ReadonlyArray<Step>, slot: 0 | 1, after: number): number =>
  steps.find((step, index) => index > after && step.slot === slot)?.lameDuck ?? 0
