/** Plays one case against one subject. */
import { Cause, Effect, Exit } from "effect"
import type { Case } from "./case.ts"
import { launch, within } from "./server.ts"
import type { Subject } from "./subject.ts"

export type Outcome =
  | { readonly _tag: "Pass" }
  | { readonly _tag: "Fail"; readonly why: string }
  /** It has no part in what the subject promises. */
  | { readonly _tag: "NotApplicable" }

export interface Result {
  readonly case: Case
  readonly subject: Subject
  readonly outcome: Outcome
  readonly millis: number
  /** What the process had printed, where the case failed. */
  readonly output: string
}

/** No case takes longer, whatever its own bounds are. */
const cap = 25_000

export const applies = ({ needs = [] }: Case, { features }: Subject): boolean =>
  needs.every((feature) => features.includes(feature))

/** For a machine that is busy, in milliseconds. No case waits for that time to be over. */
const patience = 5000

export const play = Effect.fnUntraced(function* (
  each: Case,
  subject: Subject,
  options: { readonly patient: boolean }
): Effect.fn.Return<Result> {
  if (!applies(each, subject)) {
    return { case: each, subject, outcome: { _tag: "NotApplicable" }, millis: 0, output: "" }
  }
  const startedAt = performance.now()
  let output = () => ""
  const exit = yield* Effect.gen(function* () {
    const more = options.patient && each.hurried === true ? { patience } : {}
    const server = yield* launch(subject, { ...each.settings, ...more })
    output = server.program.output
    yield* each.run(server)
  }).pipe(Effect.scoped, within(cap, "the case ends"), Effect.exit)
  const outcome: Outcome = Exit.isSuccess(exit) ? { _tag: "Pass" } : { _tag: "Fail", why: reason(exit.cause) }
  return { case: each, subject, outcome, millis: performance.now() - startedAt, output: output() }
})

/** The first line of what went wrong. */
const reason = (cause: Cause.Cause<never>): string => {
  const error = Cause.squash(cause)
  const message = error instanceof Error ? error.message : String(error)
  return message.split("\n")[0]!
}

/** It is known to fail, and does not. */
export const isWeak = ({ case: { knownToFail = [] }, outcome, subject }: Result): boolean =>
  outcome._tag === "Pass" && knownToFail.includes(subject.name)
