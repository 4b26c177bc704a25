import type { Kms, KmsHealth } from "effect-kms"

// The numbers that deployment.yaml has to fit. README.md says why they are what they are.

export const shutdown = {
  lameDuck: "5 seconds",
  timeout: "35 seconds",
  forceTimeout: "5 seconds"
} satisfies Kms.Options

export const health = {
  checkTimeout: "800 millis",
  cacheFor: "500 millis"
} satisfies KmsHealth.Options
