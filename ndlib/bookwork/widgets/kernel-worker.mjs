// The heavy work of the kernel explorer, off the page's own thread.

import { answer } from "./background.mjs";
import { autocovariance, decompose } from "./kernels.mjs";

answer({ autocovariance, decompose });
