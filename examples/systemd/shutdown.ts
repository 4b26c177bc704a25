import type { Kms } from "effect-kms"

/** The numbers that effect-kms-example.service has to fit. No lame duck: nobody has to look away from a socket that stays. */
export const shutdown = {
  timeout: "30 seconds",
  forceTimeout: "5 seconds"
} satisfies Kms.Options
