/**
 * Chaos behind HAProxy, in its short form: `npm run chaos:haproxy`. The full one is `npm run chaos`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { balanced } from "./balanced.ts"
import * as HaProxy from "./haproxy.ts"
import { few } from "./load.ts"
import { judge } from "./scenario.ts"
import { areFoundOut, areSentAway, cutsAreFoundOut, patience, seed, seen } from "./short.ts"

/** The machine may stand still for a second just as the lame duck begins. */
const lameDuck = 3000

const haproxy = HaProxy.install()
if (haproxy === undefined)
  console.warn("!!! LEFT OUT: restarts behind HAProxy. There is none, and none could be installed.")

describe.skipIf(haproxy === undefined)("a rolling restart of two servers under load, behind HAProxy", () => {
  it.live(
    "loses no request, message or event, and each exit is 0",
    () =>
      Effect.gen(function* () {
        const scenario = yield* balanced({ seed, restarts: 2, clients: few, lameDuck }, () => {})
        assert.deepStrictEqual(judge(scenario).problems, [], seen(scenario))
        areSentAway(scenario, ["WebSocket", "events"])
      }),
    patience
  )

  it.live(
    cutsAreFoundOut,
    () =>
      Effect.map(
        balanced({ seed, restarts: 2, clients: few, breakage: "exits" }, () => {}),
        areFoundOut
      ),
    patience
  )
})
