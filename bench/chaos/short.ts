/**
 * What the short forms of chaos have in common.
 */
import { assert } from "@effect/vitest"
import type { Kind } from "./ledger.ts"
import { few } from "./load.ts"
import { judge, type Scenario } from "./scenario.ts"

/** The plan is the same in every run; `KMS_SEED` tries others. */
export const seed = Number(process.env["KMS_SEED"] ?? 1)
console.log(`chaos: seed ${seed}`)

/** It takes some seconds each; a busy machine may take its time. */
export const patience = 120_000

export const seen = (scenario: Scenario): string =>
  JSON.stringify({ seed, counted: scenario.counted, failures: judge(scenario).failures }, null, 2)

/** The servers were restarted while their clients were there, or nothing was shown. */
export const areSentAway = (scenario: Scenario, kinds: ReadonlyArray<Kind>): void => {
  for (const kind of kinds) assert.isAbove(scenario.counted[kind]?.sentAway ?? 0, 0, seen(scenario))
}

export const cutsAreFoundOut = "is counted by what is lost: servers that cut their connections are found out"

/**
 * Both servers ended with all that they had, and what lives as long as a server was on one or the other: none of it is
 * left to chance.
 */
export const areFoundOut = (scenario: Scenario): void => {
  for (const kind of ["WebSocket", "events"] as const)
    assert.isAtLeast(scenario.counted[kind]?.failed ?? 0, few[kind]!, seen(scenario))
  assert.match(judge(scenario).problems.join("\n"), /not explained/)
}
