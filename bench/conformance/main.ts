/**
 * The conformance table: every case against every subject, each in a process of its own.
 *
 *     npm run conformance
 *     npm run conformance -- --subject effect-kms        those whose name begins so; may be repeated, or a list with commas
 *     npm run conformance -- --case "Half a"             those whose name has this in it; may be repeated
 *     npm run conformance -- --concurrency 1 --verbose   one after the other, with what a subject printed where it failed
 *     npm run conformance -- --patient                   where a client has to be in time, effect-kms gives it more of that
 *     npm run conformance -- --controls                  two servers that stop as badly as can be, in place of the subjects
 *
 * Ends with 1 if effect-kms fails a case, or if a peer passes one that it is known to fail: then the case is too weak. So
 * is one that neither of the controls fails. A run of everything writes RESULTS.md.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Deferred, Effect } from "effect"
import { writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { groups as allGroups } from "./cases/index.ts"
import { isWeak, play, type Result } from "./run.ts"
import { arePeersInstalled, controls, subjects as allSubjects } from "./subject.ts"
import { document, heading, row, summary } from "./table.ts"

const { values: options } = parseArgs({
  options: {
    subject: { type: "string", multiple: true, default: [] },
    subjects: { type: "string", multiple: true, default: [] },
    case: { type: "string", multiple: true, default: [] },
    concurrency: { type: "string", default: "6" },
    controls: { type: "boolean", default: false },
    patient: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false }
  }
})

const chosen = [...options.subject, ...options.subjects].flatMap((names) => names.split(","))
const subjects = (options.controls ? controls : allSubjects).filter(
  ({ name }) => chosen.length === 0 || chosen.some((prefix) => name.startsWith(prefix.trim()))
)
const groups = allGroups
  .map(({ cases, name }) => ({
    name,
    cases: cases.filter((each) => options.case.length === 0 || options.case.some((part) => each.name.includes(part)))
  }))
  .filter(({ cases }) => cases.length > 0)
const cases = groups.flatMap(({ cases }) => cases)
const isWhole = !options.controls && !options.patient && chosen.length === 0 && options.case.length === 0

const give = (problem: string): never => {
  console.error(problem)
  process.exit(1)
}

if (subjects.length === 0 || cases.length === 0) give("No subject, or no case, has such a name.")
if (subjects.some(({ peer }) => peer === true) && !arePeersInstalled()) {
  give("The peers are not installed: npm ci --prefix bench/peers. Or choose: --subject effect-kms")
}
if (new Set(cases.map(({ name }) => name)).size !== cases.length) give("Two cases have one name.")
for (const { knownToFail = [], name } of cases) {
  for (const known of knownToFail) {
    if (!allSubjects.some((subject) => subject.name === known)) give(`${name}: there is no subject ${known}`)
  }
}

const program = Effect.gen(function* () {
  const startedAt = performance.now()
  const pairs = cases.flatMap((each) =>
    subjects.map((subject) => ({ each, subject, result: Deferred.makeUnsafe<Result>() }))
  )
  yield* Effect.forEach(
    pairs,
    ({ each, result, subject }) =>
      Effect.flatMap(play(each, subject, options), (played) => Deferred.succeed(result, played)),
    { concurrency: Number(options.concurrency), discard: true }
  ).pipe(Effect.forkChild)

  const results: Array<Result> = []
  for (const group of groups) {
    console.log(`\n## ${group.name}\n\n${heading(subjects)}`)
    for (const each of group.cases) {
      const played = yield* Effect.forEach(
        pairs.filter((pair) => pair.each === each),
        ({ result }) => Deferred.await(result)
      )
      results.push(...played)
      console.log(row(each, played))
      for (const { millis, outcome, output, subject } of played) {
        if (outcome._tag !== "Fail") continue
        if (subject.ours === true || options.verbose) {
          console.log(`    ${subject.name}, after ${Math.round(millis)} ms: ${outcome.why}`)
          console.log(output.replaceAll(/^/gm, "        ").slice(0, 6000))
        }
      }
    }
  }

  console.log(`\n${summary(subjects, results)}\n`)
  const failed = results.filter(({ outcome, subject }) => subject.ours === true && outcome._tag === "Fail")
  for (const { case: each, outcome, subject } of failed) {
    console.log(`FAILED: ${subject.name}: ${each.name}: ${outcome._tag === "Fail" ? outcome.why : ""}`)
  }
  const weak = results.filter(isWeak)
  for (const { case: each, subject } of weak) {
    console.log(`TOO WEAK: ${subject.name} is known to fail, and passed: ${each.name}`)
  }
  const idle = options.controls
    ? cases.filter((each) => results.every((result) => result.case !== each || result.outcome._tag !== "Fail"))
    : []
  for (const { name } of idle) console.log(`CANNOT FAIL: ${name}`)
  const seconds = Math.round((performance.now() - startedAt) / 1000)
  console.log(`${cases.length} cases, ${subjects.length} subjects, ${results.length} runs in ${seconds} s`)
  if (isWhole) {
    writeFileSync(fileURLToPath(new URL("RESULTS.md", import.meta.url)), document(subjects, groups, results))
  }
  process.exitCode = failed.length + weak.length + idle.length > 0 ? 1 : 0
})

NodeRuntime.runMain(program)
