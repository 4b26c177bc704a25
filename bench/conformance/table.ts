/** The results as Markdown: the table, what each failure was, and a summary for the README. */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import type { Case, Group } from "./case.ts"
import type { Result } from "./run.ts"
import type { Subject } from "./subject.ts"

const mark = { Pass: "pass", Fail: "**fail**", NotApplicable: "-" } as const

const line = (cells: ReadonlyArray<string>): string => `| ${cells.join(" | ")} |`

export const heading = (subjects: ReadonlyArray<Subject>): string =>
  [line(["", ...subjects.map(({ name }) => name)]), line(["---", ...subjects.map(() => "---")])].join("\n")

export const row = (each: Case, results: ReadonlyArray<Result>): string =>
  line([`${each.name} (${each.origin})`, ...results.map(({ outcome }) => mark[outcome._tag])])

const count = (results: ReadonlyArray<Result>, subject: Subject, tag: Result["outcome"]["_tag"]): number =>
  results.filter((result) => result.subject === subject && result.outcome._tag === tag).length

export const summary = (subjects: ReadonlyArray<Subject>, results: ReadonlyArray<Result>): string =>
  [
    line(["", "passed", "failed", "not judged"]),
    line(["---", "---", "---", "---"]),
    ...subjects.map((subject) =>
      line([
        subject.name,
        `${count(results, subject, "Pass")}`,
        `${count(results, subject, "Fail")}`,
        `${count(results, subject, "NotApplicable")}`
      ])
    )
  ].join("\n")

const versionOf = (path: string): string =>
  (JSON.parse(readFileSync(fileURLToPath(new URL(path, import.meta.url)), "utf8")) as { version: string }).version

/** Who was run, by version. */
const versions = (subjects: ReadonlyArray<Subject>): string =>
  subjects
    .filter(({ peer }) => peer === true)
    .map(({ name }) => (name === "terminus" ? "@godaddy/terminus" : name))
    .map((name) => `${name} ${versionOf(`../peers/node_modules/${name}/package.json`)}`)
    .join(", ")

/** What went wrong in a case, each reason once. */
const failures = (results: ReadonlyArray<Result>): string => {
  const byReason = new Map<string, Array<string>>()
  for (const { outcome, subject } of results) {
    if (outcome._tag !== "Fail") continue
    const why = outcome.why.replaceAll(/\d{4,} bytes/g, "some MB")
    byReason.set(why, [...(byReason.get(why) ?? []), subject.name])
  }
  return Array.from(byReason, ([why, names]) => `  - ${names.join(", ")}: ${why}`).join("\n")
}

/** With columns as wide as their cells, as the formatter has them. */
const aligned = (text: string): string =>
  text.replaceAll(/(?:^\|.*\|\n)+/gm, (table) => {
    const rows = table
      .trimEnd()
      .split("\n")
      .map((line) => line.slice(2, -2).split(" | "))
    const widths = rows[0]!.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)))
    const fill = (cell: string, column: number) => cell.padEnd(widths[column]!, cell === "---" ? "-" : " ")
    return rows.map((cells) => `${line(cells.map(fill))}\n`).join("")
  })

export const document = (
  subjects: ReadonlyArray<Subject>,
  groups: ReadonlyArray<Group>,
  results: ReadonlyArray<Result>
): string => {
  const of = (each: Case) => results.filter((result) => result.case === each)
  const failed = groups
    .flatMap(({ cases }) => cases)
    .filter((each) => failures(of(each)) !== "")
    .map((each) => {
      const known = each.knownToFail?.length
        ? `\n  - Known before: ${each.knownToFail.join(", ")}. Why: ${each.because}.`
        : ""
      return `- ${each.name}\n${failures(of(each))}${known}`
    })
  return aligned(`# Conformance

Written by \`npm run conformance\`; [README.md](README.md) says how the cases work. Node ${process.version}, effect and
@effect/platform-node ${versionOf("../../node_modules/effect/package.json")}, ${versions(subjects)}.

<!-- summary -->

${summary(subjects, results)}

<!-- /summary -->

\`effect-kms\` is \`KmsHttp.layer\`, \`effect-kms-node\` is \`KmsHttp.layerNode\` with \`KmsHijack\`. \`node:http\` is \`server.close()\`,
\`NodeHttpServer\` is Effect's own with \`NodeRuntime.runMain\`, \`fastify\` is \`app.close()\`, and \`close-with-grace\` calls that.
A dash is a case about something that the subject does not promise, and is neither passed nor failed: a lame duck, clean-ups,
HTTP/2, uncaught errors, SIGHUP. Limits are not among these: a process that never ends is killed, whoever promised what.

${groups
  .map(
    ({ cases, name }) => `## ${name}\n\n${heading(subjects)}\n${cases.map((each) => row(each, of(each))).join("\n")}`
  )
  .join("\n\n")}

## What went wrong

${failed.join("\n")}
`)
}
