/**
 * Busy sections of fibers: how one is begun, and what becomes of a fiber that may not begin one.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { CurrentHold, CurrentReleased, CurrentSection, keep, type Section } from "./gate.ts"
import { Kms } from "./kms.ts"
import { OptionError } from "./options.ts"

export interface Options {
  readonly onDrain?: "admit" | "park" | undefined
}

/**
 * Begins a section, or waits where none may begin. What nobody but its listener waits for goes on without one, and is not
 * interrupted by that meanwhile.
 */
export const entered = <A, E, R>(
  name: string,
  options: Options | undefined,
  inside: (leave: () => void, section: Section | undefined, restore: Restore) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber) => {
      const { onDrain = "admit" } = options ?? {}
      if (onDrain !== "admit" && onDrain !== "park") {
        const problem = 'neither "admit" nor "park"'
        return Effect.die(new OptionError({ option: "onDrain", value: onDrain, problem }))
      }
      const { gate } = fiber.getRef(Kms)
      const hold = fiber.getRef(CurrentHold)
      const section = gate.enter({
        name,
        now: fiber.getRef(Clock.Clock).currentTimeMillisUnsafe(),
        park: onDrain === "park",
        parent: fiber.getRef(CurrentSection),
        hold,
        fiber
      })
      if (section !== undefined) return inside(() => gate.leave(section), section, restore)
      if (fiber.getRef(CurrentReleased)?.live === true) return inside(keep(hold), undefined, restore)
      return restore(Effect.never)
    })
  )

type Restore = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
