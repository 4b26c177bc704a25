/**
 * Rounds of random faults. In each a program is started, set upon, told to end, and held to what is promised.
 */
import { Effect, Option } from "effect"
import { readFileSync } from "node:fs"
import { beside, type Program, start } from "../../test/support/program.ts"
import { misbehave } from "./bad-peers.ts"
import type { Client } from "./clients/client.ts"
import { keepAlive } from "./clients/http1.ts"
import { type Failure, Ledger, now } from "./ledger.ts"
import { type Seen, type Verdict, verdict } from "./promises.ts"
import * as Random from "./random.ts"
import { forceTimeout, plan, type Round, type Shot, timeout } from "./round.ts"

export interface Judged {
  readonly round: Round
  readonly seen: Seen
  readonly verdict: Verdict
}

/** Rounds of one seed, `concurrency` of them at a time. */
export const faults = (
  options: {
    readonly seed: number
    readonly rounds: number
    readonly concurrency: number
    /** How much later a process may be seen to be gone, in milliseconds. */
    readonly late?: number | undefined
    /** Plays this one alone. */
    readonly only?: number | undefined
  },
  progress: (done: number, judged: Judged) => void
): Effect.Effect<ReadonlyArray<Judged>, unknown> => {
  const random = Random.make(options.seed)
  const rounds = Array.from({ length: options.rounds }, (_, index) => plan(random, index))
  let done = 0
  return Effect.forEach(
    rounds.filter(({ index }) => options.only === undefined || index === options.only),
    (round) =>
      Effect.gen(function* () {
        const seen = yield* play(round)
        const judged: Judged = { round, seen, verdict: verdict(round, seen, options.late) }
        progress(++done, judged)
        return judged
      }),
    { concurrency: options.concurrency }
  )
}

/** Whatever should happen and does not is a finding, not a reason to wait for ever. */
const patience = timeout + forceTimeout + 5000

const play = (round: Round): Effect.Effect<Seen> =>
  Effect.gen(function* () {
    const program = yield* start(beside(import.meta.url, "faulty.ts"), { args: [JSON.stringify(round.faults)] })
    const failures: Array<Failure> = []
    const ledger = new Ledger("keep-alive", (failure) => void failures.push(failure))
    const ended = () => program.child.exitCode !== null || program.child.signalCode !== null

    // The start-up may fail before the signal is sent. What has begun by then is its time.
    let began = yield* reached(program, round)
    if (round.moment === "started" && !ended()) {
      yield* Effect.timeoutOption(trouble(round, program, ledger), 10_000)
      if (!/Shutting down|Uncaught error/.test(program.output())) began = now()
    }
    yield* Effect.sleep(round.first.after)
    const signalled = now()
    if (!/no such table|Shutting down|Uncaught error/.test(program.output())) began = signalled
    yield* shoot(program, round.first)
    let second: number | undefined
    if (round.second !== undefined) {
      const gone = yield* Effect.timeoutOption(program.ended, round.second.after)
      if (Option.isNone(gone)) {
        second = now()
        yield* shoot(program, round.second)
      }
    }
    const exit = Option.getOrUndefined(yield* Effect.timeoutOption(program.ended, patience))
    const standstill = exit === undefined ? waited(program.pid) : undefined
    // `at` is of this process's clock.
    const at = exit === undefined ? now() : performance.timeOrigin + exit.at
    return {
      output: program.output(),
      exit,
      standstill,
      millis: at - began,
      afterSecond: second === undefined || at < second ? undefined : at - second,
      counts: ledger.counts,
      failures
    }
  }).pipe(Effect.scoped)

/** How long it ran on a core, and how long it waited for one, as Linux counts: whether it hung, was busy, or was kept waiting. */
const waited = (pid: number): string => {
  try {
    const [ran, waits] = readFileSync(`/proc/${pid}/schedstat`, "utf8").split(" ").map(Number)
    return `its main thread had run for ${Math.round(ran! / 1e6)} ms, and waited for a core for ${Math.round(waits! / 1e6)} ms`
  } catch {
    return "nothing is known of its main thread"
  }
}

/** Waits for the moment from which the first signal is counted, or for the end. Gives its time. */
const reached = (program: Program, { moment }: Round): Effect.Effect<number> => {
  if (moment === "spawned") return Effect.sync(now)
  return Effect.raceFirst(
    Effect.asVoid(program.printed(new RegExp(`^${moment}\\b`, "m"))),
    Effect.asVoid(program.ended)
  ).pipe(
    Effect.catchDefect(() => Effect.void),
    Effect.map(now)
  )
}

const shoot = (program: Program, { name }: Shot): Effect.Effect<void> =>
  program.kill(name).pipe(Effect.catchDefect(() => Effect.void))

/** The peers and the clients; done when each of them is at it. */
const trouble = Effect.fnUntraced(function* (round: Round, program: Program, ledger: Ledger) {
  const port = Number((yield* program.printed(/^port (\d+)$/m))[1])
  for (const [index, peer] of round.peers.entries()) {
    yield* Effect.callback<void>((resume) => {
      const end = misbehave(peer, port, Random.make(round.seed + index), () => resume(Effect.void))
      program.child.once("exit", end)
    })
  }
  for (let id = 0; id < round.clients; id++) {
    yield* Effect.callback<void>((resume) => {
      const client = wellBehaved(id, port, round, program, ledger, () => resume(Effect.void))
      keepAlive(client, { host: "127.0.0.1", port }, [0, 50], () => resume(Effect.void))
    })
  }
  const { work } = round.faults
  if (work === "hung request") {
    program.child.once(
      "exit",
      misbehave("hangs in a request", port, Random.make(round.seed), () => {})
    )
    yield* program.printed(/^begun \/never$/m)
  }
  if (work === "uncaught exception" || work === "unhandled rejection") {
    // The signal comes a moment before it is thrown, or after.
    yield* Effect.callback<void>((resume) => {
      const end = misbehave("makes it throw", port, Random.make(round.seed), () => resume(Effect.void))
      program.child.once("exit", end)
    })
  }
})

const wellBehaved = (
  id: number,
  port: number,
  { seed }: Round,
  program: Program,
  ledger: Ledger,
  heard: () => void
): Client => {
  const random = Random.make(seed + 1000 + id)
  const address = { host: "127.0.0.1", port }
  return {
    id,
    load: { http: address, http2: address },
    ledger,
    random,
    heard,
    stopping: () => program.child.exitCode !== null || program.child.signalCode !== null,
    onStop: (listener) => void program.child.once("exit", listener),
    pause: (least, most, next) => void setTimeout(next, random.between(least, most))
  }
}
