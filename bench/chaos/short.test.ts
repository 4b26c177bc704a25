/**
 * Chaos in its short form, without what has to be installed; the full one is `npm run chaos`. Behind HAProxy:
 * `haproxy.test.ts`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { faults } from "./faults.ts"
import { few } from "./load.ts"
import { reuseport } from "./reuseport.ts"
import { describe as inWords } from "./round.ts"
import { judge } from "./scenario.ts"
import { areFoundOut, areSentAway, cutsAreFoundOut, patience, seed, seen } from "./short.ts"

/** The machine may stand still for a while. That is no pause that a client makes, and no reason to take one for quiet. */
const quietPeriod = 10_000

const options = { seed, migrate: false, lameDucks: [0], clients: { ...few, "far, in use": 4 }, quietPeriod } as const

// Elsewhere the kernel has no such option, or shares nothing by it.
describe.skipIf(process.platform !== "linux")("a rolling restart of two servers under load, on one port", () => {
  it.live(
    "loses no request, message or event but for what was never accepted, and each exit is 0",
    () =>
      Effect.gen(function* () {
        const scenario = yield* reuseport({ ...options, restarts: 2 }, () => {})
        assert.deepStrictEqual(judge(scenario).problems, [], seen(scenario))
        areSentAway(scenario, ["keep-alive", "HTTP/2"])
      }),
    patience
  )

  it.live(
    cutsAreFoundOut,
    () =>
      Effect.map(
        reuseport({ ...options, restarts: 2, breakage: "exits" }, () => {}),
        areFoundOut
      ),
    patience
  )
})

it.live(
  "rounds of random faults: the exit code, the time of the end and the releases are as promised",
  () =>
    Effect.gen(function* () {
      const rounds = yield* faults({ seed, rounds: 6, concurrency: 2, late: 3000 }, () => {})
      const broken = rounds.filter(({ verdict }) => verdict.problems.length > 0)
      const told = broken.map(({ round, seen, verdict }) => ({
        round: inWords(round),
        problems: verdict.problems,
        output: seen.output
      }))
      assert.deepStrictEqual(told, [], `seed ${seed - 3} for npm run chaos -- --only faults --rounds 6`)
    }),
  patience
)
