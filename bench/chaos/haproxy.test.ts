/**
 * Chaos behind HAProxy, in its short form: `npm run chaos:haproxy`. The full one is `npm run chaos`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { balanced } from "./balanced.ts"
import * as HaProxy from "./haproxy.ts"
import { few } from "./load.ts"
import { judge } from "./scenario.ts"
import { areSentAway, patience, seed, seen } from "./short.ts"

const haproxy = HaProxy.install()
if (haproxy === undefined)
  console.warn("!!! LEFT OUT: restarts behind HAProxy. There is none, and none could be installed.")

describe.skipIf(haproxy === undefined)("a rolling restart of two servers under load, behind HAProxy", () => {
  it.live(
    "loses no request, message or event, and each exit is 0",
    () =>
      Effect.gen(function* () {
        const scenario = yield* balanced({ seed, restarts: 2, clients: few }, () => {})
        assert.deepStrictEqual(judge(scenario).problems, [], seen(scenario))
        areSentAway(scenario, ["WebSocket", "events"])
      }),
    patience
  )

  it.live(
    "is counted by what is lost: servers that cut their connections are found out",
    () =>
      Effect.gen(function* () {
        const scenario = yield* balanced({ seed, restarts: 1, breakage: "closes", clients: few }, () => {})
        assert.isAbove(scenario.failures.length, 0)
        assert.match(judge(scenario).problems.join("\n"), /not explained/)
      }),
    patience
  )
})
