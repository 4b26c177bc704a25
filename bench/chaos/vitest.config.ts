import { defineConfig, type TestProjectInlineConfiguration } from "vitest/config"
import shared from "../../vitest.config.ts"

// The short form of chaos, on its own: beside other tests it would say more of the machine than of the library.
const [, e2e] = shared.test!.projects as ReadonlyArray<TestProjectInlineConfiguration>

export default defineConfig({
  ...shared,
  test: { projects: [{ ...e2e!, test: { ...e2e!.test, name: "chaos", include: ["bench/chaos/*.test.ts"] } }] }
})
