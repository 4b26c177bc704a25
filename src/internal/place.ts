/**
 * Where a fiber is, as far as Effect knows: the innermost span or `Effect.fn` that it is in. It is what tells apart what
 * nobody has given a name.
 */
import * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { duration } from "./text.ts"

/**
 * The children of a fiber. Private to Effect, and pinned by a test. Those that `Effect.all`, races and the closing of a
 * parallel scope start are not among them: nobody can find these.
 */
interface Parent {
  readonly _children?: ReadonlySet<Fiber.Fiber<unknown, unknown>> | undefined
}

/** A name and the line that it comes from, for each end of the tree of fibers; nothing where Effect knows of none. */
export const places = (fiber: Fiber.Fiber<unknown, unknown>): ReadonlyArray<string> => {
  if (fiber.pollUnsafe() !== undefined) return []
  const children = Array.from((fiber as Parent)._children ?? []).filter((child) => child.pollUnsafe() === undefined)
  const inner = children.flatMap(places)
  if (inner.length > 0) return inner
  const own = place(fiber)
  return own === undefined ? [] : [own]
}

const place = ({ cache: { span, stackFrame: frame } }: Fiber.Fiber<unknown, unknown>): string | undefined => {
  if (frame !== undefined) {
    const [, at] = /\(?(?:file:\/\/)?([^\s()]+:\d+:\d+)\)?$/m.exec(frame.stack() ?? "") ?? []
    return at === undefined ? frame.name : `${frame.name} at ${at}`
  }
  return span?._tag === "Span" && span.status._tag === "Started" ? span.name : undefined
}

/** What has not ended, in words: for how long, and where its fiber is. */
export const held = (what: string, age: number, fiber: Fiber.Fiber<unknown, unknown> | undefined): string =>
  `${what} for ${duration(age)}${fiber === undefined ? "" : within(fiber)}`

/** Where a fiber is, as the end of a phrase. */
export const within = (fiber: Fiber.Fiber<unknown, unknown>): string => {
  const all = first(Array.from(new Set(places(fiber))), 10)
  return all.length === 0 ? "" : `, in ${all.join(" and ")}`
}

/** So many of them, and how many there are beside. */
export const first = (names: ReadonlyArray<string>, max: number, before = ""): ReadonlyArray<string> =>
  names.length > max ? [...names.slice(0, max), `${before}${names.length - max} more`] : names

/** The fibers that run in `scope`, and in the scopes inside it: each is the key of its own finalizer there. */
export const fibersIn = (
  { state }: Scope.Scope,
  fibers: Array<Fiber.Fiber<unknown, unknown>> = []
): Array<Fiber.Fiber<unknown, unknown>> => {
  if (state._tag !== "Open") return fibers
  for (const key of state.finalizers === undefined ? [state.finalizerKey] : state.finalizers.keys()) {
    if (Fiber.isFiber(key)) fibers.push(key)
    else if (isScope(key)) fibersIn(key, fibers)
  }
  return fibers
}

const isScope = (key: unknown): key is Scope.Scope =>
  Predicate.hasProperty(key, "state") && Predicate.hasProperty(key, "strategy")
