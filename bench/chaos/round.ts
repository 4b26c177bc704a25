/**
 * One round of random faults, as planned: the faults of the program, the peers that misbehave, and the signals. The plan is
 * all that the seed decides.
 */
import { type BadPeer, badPeers } from "./bad-peers.ts"
import type * as Random from "./random.ts"

const finalizers = ["fine", "slow", "fails", "throws", "hangs", "hangs with a timeout"] as const
const startUps = ["fine", "slow", "fails", "hangs", "hangs uninterruptibly"] as const
const works = [
  "none",
  "slow section",
  "hung section",
  "hung request",
  "uncaught exception",
  "unhandled rejection"
] as const

export interface Faults {
  /** What the finalizer of the second of the three resources does. */
  readonly finalizer: (typeof finalizers)[number]
  /** What the application does once everything beneath it is up. */
  readonly startUp: (typeof startUps)[number]
  /** What is under way when the signal comes. */
  readonly work: (typeof works)[number]
  /** In milliseconds. */
  readonly lameDuck: number
}

/** Of every program, in milliseconds. */
export const timeout = 1500
export const forceTimeout = 500

/** What the program has printed when a moment is counted from; `spawned` is its very beginning. */
export type Moment = "spawned" | "loaded" | "starting" | "started"

export interface Shot {
  readonly name: "SIGTERM" | "SIGINT" | "SIGHUP"
  /** Milliseconds after the moment, or after the first signal. */
  readonly after: number
}

export interface Round {
  readonly index: number
  readonly seed: number
  readonly faults: Faults
  readonly moment: Moment
  readonly first: Shot
  readonly second: Shot | undefined
  readonly peers: ReadonlyArray<BadPeer>
  /** Well-behaved clients, on a keep-alive connection each. */
  readonly clients: number
}

/** The same signal within half a second is an echo, and a hangup then belongs to the first: near that nobody can say. */
const unclear = (first: Shot, { after, name }: Shot): boolean =>
  (name === first.name || name === "SIGHUP") && after > 350 && after < 700

/** Whether the second signal is one, by its name and time. */
export const isSecond = (first: Shot, { after, name }: Shot): boolean =>
  (name !== first.name && name !== "SIGHUP") || after >= 500

export const plan = (random: Random.Random, index: number): Round => {
  const seed = random.between(0, 2 ** 31)
  const startUp = random.chance(0.65)
    ? "fine"
    : random.pick(["slow", "fails", "hangs", "hangs uninterruptibly"] as const)
  const reaches = startUp === "fine" || startUp === "slow"
  const moment: Moment = reaches
    ? random.pick(["started", "started", "started", "started", "started", "spawned", "loaded", "starting"])
    : random.pick(["spawned", "loaded", "starting", "starting", "starting"])
  const served = moment === "started"
  const names = ["SIGTERM", "SIGTERM", "SIGINT", "SIGHUP"] as const
  const first: Shot = {
    name: random.pick(names),
    after: moment === "spawned" ? random.between(150, 900) : random.between(0, 60)
  }
  let second: Shot | undefined
  if (random.chance(0.35)) {
    do second = { name: random.pick(names), after: random.between(0, 1200) }
    while (unclear(first, second))
  }
  const work = served
    ? random.pick([
        "none",
        "none",
        "none",
        "slow section",
        "slow section",
        "hung section",
        "hung request",
        "uncaught exception",
        "unhandled rejection"
      ] as const)
    : "none"
  const peers = served ? Array.from({ length: random.between(0, 4) }, () => random.pick(badPeers)) : []
  return {
    index,
    seed,
    faults: {
      finalizer: random.pick(finalizers),
      startUp,
      work,
      lameDuck: random.chance(0.3) ? random.between(50, 400) : 0
    },
    moment,
    first,
    second,
    peers,
    clients: served ? random.between(1, 6) : 0
  }
}

/** In words, for whoever has to find out what went wrong. */
export const describe = ({ clients, faults, first, index, moment, peers, second }: Round): string =>
  [
    `round ${index}: ${first.name} ${first.after} ms after ${moment}`,
    ...(second === undefined ? [] : [`${second.name} ${second.after} ms later`]),
    `start-up ${faults.startUp}`,
    `work ${faults.work}`,
    `finalizer ${faults.finalizer}`,
    `lame duck ${faults.lameDuck} ms`,
    `${clients} clients`,
    `peers: ${peers.length === 0 ? "none" : peers.join(", ")}`
  ].join("; ")
