/**
 * The tables, in Markdown.
 */
import type { Judged as FaultRound } from "./faults.ts"
import { type Counts, kinds } from "./ledger.ts"
import { forceTimeout, timeout } from "./round.ts"
import type { Judged, Scenario } from "./scenario.ts"
import { type Ending, slack } from "./promises.ts"

const count = (value: number): string => value.toLocaleString("en-US")

const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [head, head.map((_, index) => (index === 0 ? "---" : "---:")), ...rows]
    .map((row) => `| ${row.join(" | ")} |`)
    .join("\n")

const columns = {
  connections: "connections",
  sent: "sent",
  answered: "answered",
  repeated: "refused, sent again",
  failed: "failed",
  sentAway: "sent away",
  endedIdle: "ended idle",
  events: "events",
  lost: "events lost"
} as const satisfies { readonly [K in keyof Counts]?: string }

const exits = (judged: Judged): string =>
  Array.from(judged.exits, ([code, times]) => `${times} with ${code}`).join(", ")

/** One line a scenario. */
export const summary = (all: ReadonlyArray<readonly [Scenario, Judged]>, rounds: ReadonlyArray<FaultRound>): string => {
  const rows = all.map(([scenario, judged]) => {
    const sum = (column: keyof Counts) =>
      count(kinds.reduce((total, kind) => total + (scenario.counted[kind]?.[column] ?? 0), 0))
    return [
      scenario.name,
      String(scenario.restarts),
      sum("sent"),
      sum("answered"),
      sum("repeated"),
      String(judged.failures.length),
      String(judged.failures.filter(({ reason }) => reason === undefined).length),
      exits(judged)
    ]
  })
  const head = ["", "restarts", "sent", "answered", "refused, sent again", "failed", "not explained", "exits"]
  const broken = rounds.filter(({ verdict }) => verdict.problems.length > 0).length
  const faults =
    rounds.length === 0
      ? ""
      : `\n\n${rounds.length} rounds of random faults, ${broken === 0 ? "each" : `all but ${broken}`} as promised.`
  return table(head, rows) + faults
}

/** What became of the requests of each kind of client, and each failure with where it belongs. */
export const scenario = (each: Scenario, judged: Judged): string => {
  const rows = kinds.flatMap((kind) => {
    const counts = each.counted[kind]
    if (counts === undefined) return []
    return [[kind, ...(Object.keys(columns) as Array<keyof typeof columns>).map((column) => count(counts[column]))]]
  })
  const groups = new Map<string, number>()
  for (const { failure, phase, reason } of judged.failures) {
    const how = failure.how.replace(/stream \d+/, "a stream")
    const key = [failure.kind, how, phase, reason ?? "**not explained**"].join(" | ")
    groups.set(key, (groups.get(key) ?? 0) + 1)
  }
  const failures = Array.from(groups, ([key, times]) => [...key.split(" | "), String(times)])
  const parts = [
    `## ${each.name}`,
    `${each.restarts} restarts in ${Math.round(each.millis / 1000)} s. Exits: ${exits(judged)}.`,
    table(["clients", ...Object.values(columns)], rows)
  ]
  if (failures.length > 0) parts.push(table(["failed", "how", "when", "why", "times"], failures))
  if (each.notes.length > 0) parts.push(each.notes.map((note) => `- ${note}`).join("\n"))
  if (judged.problems.length > 0) parts.push(judged.problems.map((problem) => `- **${problem}**`).join("\n"))
  return parts.join("\n\n")
}

const endings: ReadonlyArray<Ending> = ["0", "1", "1, at once", "before it had begun"]

/** How the rounds ended, by what was wrong in them. */
export const faults = (rounds: ReadonlyArray<FaultRound>): string => {
  const groups = new Map<string, Array<FaultRound>>()
  const add = (name: string, round: FaultRound) => groups.set(name, [...(groups.get(name) ?? []), round])
  for (const each of rounds) {
    const { faults, moment, peers } = each.round
    add("all", each)
    add(`first signal: ${moment}`, each)
    if (each.seen.afterSecond !== undefined) add("a second signal, while it still ran", each)
    add(`start-up: ${faults.startUp}`, each)
    if (faults.work !== "none") add(`work: ${faults.work}`, each)
    add(`finalizer: ${faults.finalizer}`, each)
    for (const peer of new Set(peers)) add(`peer: ${peer}`, each)
  }
  const rows = Array.from(groups)
    .sort(([a], [b]) => (a === "all" ? -1 : b === "all" ? 1 : a.localeCompare(b)))
    .map(([name, group]) => [
      name,
      String(group.length),
      ...endings.map((ending) => String(group.filter(({ verdict }) => verdict.ending === ending).length)),
      `${Math.round(Math.max(...group.map(({ seen }) => seen.millis)))} ms`,
      String(group.reduce((sum, { seen }) => sum + seen.counts.answered, 0)),
      String(group.filter(({ verdict }) => verdict.problems.length > 0).length)
    ])
  const head = ["", "rounds", ...endings.map((ending) => (ending.startsWith("b") ? ending : `exit ${ending}`))]
  return [
    "## Random faults",
    `${rounds.length} rounds, timeout ${timeout} ms and forceTimeout ${forceTimeout} ms: gone after ${timeout + forceTimeout} ms (and ${slack} ms for the measuring) whatever happens.`,
    table([...head, "longest", "answered", "not as promised"], rows)
  ].join("\n\n")
}
