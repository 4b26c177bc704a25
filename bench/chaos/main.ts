/**
 * Chaos: rolling restarts under load, behind HAProxy and on one port without a balancer, and random faults. How each is
 * counted is in `clients/`; what is held against it, in `scenario.ts` and `promises.ts`.
 *
 *     npm run chaos                              all of it, some ten minutes; writes RESULTS.md
 *     npm run chaos -- --seed 7                  the plan of that seed again
 *     npm run chaos -- --restarts 20 --rounds 20 less
 *     npm run chaos -- --only faults             one part: balanced, reuseport, storm, faults
 *     npm run chaos -- --only faults --seed 7 --round 12   one round
 *     npm run chaos -- --without-haproxy --without-namespace   what a machine cannot do
 *
 * A seed repeats the plan: who, when, which fault. What the operating system makes of it differs from run to run. Exits with
 * 1 if anything failed that is not explained, or was left out without having been asked to.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect } from "effect"
import { randomInt } from "node:crypto"
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { balanced } from "./balanced.ts"
import { faults, type Judged as FaultRound } from "./faults.ts"
import * as HaProxy from "./haproxy.ts"
import * as Results from "./results.ts"
import { reuseport } from "./reuseport.ts"
import { describe } from "./round.ts"
import { type Judged, judge, type Scenario } from "./scenario.ts"

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    restarts: { type: "string", default: "200" },
    rounds: { type: "string", default: "100" },
    round: { type: "string" },
    only: { type: "string" },
    "without-haproxy": { type: "boolean", default: false },
    "without-namespace": { type: "boolean", default: false }
  }
})

const seed = Number(values.seed ?? randomInt(2 ** 31))
const restarts = Number(values.restarts)
const wants = (part: string): boolean => values.only === undefined || values.only === part

const problems: Array<string> = []
const scenarios: Array<readonly [Scenario, Judged]> = []

const leftOut = (what: string, option: string): void => {
  console.error(`\n!!! LEFT OUT: ${what}. To leave it out on purpose: ${option}\n`)
  problems.push(`left out: ${what}`)
}

const play = Effect.fnUntraced(function* (
  name: string,
  run: (progress: (done: number) => void) => Effect.Effect<Scenario, unknown>
) {
  yield* Console.log(`${name} ...`)
  const scenario = yield* run((done) => {
    if (done % 10 === 0) console.log(`${name}: ${done} restarts`)
  })
  const judged = judge(scenario)
  scenarios.push([scenario, judged])
  for (const problem of judged.problems) problems.push(`${scenario.name}: ${problem}`)
  yield* Console.log(`\n${Results.scenario(scenario, judged)}\n`)
})

/** Half of the restarts behind the balancer, a quarter without one each way. */
const parts = (haproxy: boolean, namespace: boolean) => {
  const quarter = Math.max(1, Math.round(restarts / 4))
  const rolling = [
    ...(haproxy && wants("balanced")
      ? [
          play("behind HAProxy", (progress) =>
            balanced({ seed, restarts: Math.max(1, restarts - 2 * quarter) }, progress)
          )
        ]
      : []),
    ...(wants("reuseport")
      ? [
          Effect.gen(function* () {
            for (const migrate of namespace ? [false, true] : [false])
              yield* play(`one port, tcp_migrate_req ${migrate ? 1 : 0}`, (progress) =>
                reuseport({ seed: seed + 1, restarts: quarter, migrate }, progress)
              )
          })
        ]
      : [])
  ]
  const storms = Effect.gen(function* () {
    if (!wants("storm")) return
    for (const migrate of namespace ? [false, true] : [false])
      yield* play(`storm, tcp_migrate_req ${migrate ? 1 : 0}`, (progress) =>
        Effect.map(
          reuseport(
            {
              seed: seed + 2,
              restarts: Math.max(2, Math.round(restarts / 10)),
              migrate,
              lameDucks: [0, 300],
              clients: { "one-shot": 40 }
            },
            progress
          ),
          (scenario) => ({ ...scenario, name: `${scenario.name}, a storm of new connections` })
        )
      )
  })
  return Effect.andThen(Effect.all(rolling, { concurrency: 2 }), storms)
}

const program = Effect.gen(function* () {
  yield* Console.log(`seed ${seed}`)
  const needsHaproxy = wants("balanced") && !values["without-haproxy"]
  const haproxy = needsHaproxy ? HaProxy.install() : undefined
  if (needsHaproxy && haproxy === undefined) leftOut("restarts behind HAProxy: there is none", "--without-haproxy")
  const needsNamespace = (wants("reuseport") || wants("storm")) && !values["without-namespace"]
  const namespace = needsNamespace && process.platform === "linux" && process.getuid?.() === 0
  if (needsNamespace && !namespace)
    leftOut("tcp_migrate_req: a network namespace takes Linux and root", "--without-namespace")
  yield* parts(haproxy !== undefined, namespace)

  let rounds: ReadonlyArray<FaultRound> = []
  if (wants("faults")) {
    const only = values.round === undefined ? undefined : Number(values.round)
    rounds = yield* faults({ seed: seed + 3, rounds: Number(values.rounds), concurrency: 2, only }, (done, judged) => {
      const { round, seen, verdict } = judged
      if (verdict.problems.length > 0) {
        problems.push(`${describe(round)}: ${verdict.problems.join("; ")}`)
        console.error(`${describe(round)}\n${verdict.problems.join("\n")}\n${seen.output}`)
      } else if (only !== undefined)
        console.log(`${describe(round)}\n${seen.output}\nas promised: exit ${verdict.ending}`)
      if (done % 20 === 0) console.log(`faults: ${done} rounds`)
    })
    yield* Console.log(`\n${Results.faults(rounds)}\n`)
  }

  const summary = Results.summary(scenarios, rounds)
  yield* Console.log(summary)
  if (values.only === undefined) {
    const where = `Seed ${seed}, Node ${process.version}, ${haproxy ?? "no HAProxy"}.`
    const text = [
      "# What chaos found",
      "Written by `npm run chaos`; how to read it is in [README.md](README.md).",
      where,
      summary,
      ...scenarios.map(([scenario, judged]) => Results.scenario(scenario, judged)),
      Results.faults(rounds)
    ].join("\n\n")
    writeFileSync(new URL("RESULTS.md", import.meta.url), `${text}\n`)
  }
  for (const problem of problems) yield* Console.error(`FAILED: ${problem}`)
  yield* Console.log(`seed ${seed}: ${problems.length === 0 ? "nothing failed that is not explained" : "FAILED"}`)
  process.exitCode = problems.length === 0 ? 0 : 1
})

NodeRuntime.runMain(program)
