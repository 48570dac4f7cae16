/* page.js */ /* page.css */ /* page.js */ /* whatif.json */
