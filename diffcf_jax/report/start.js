startCases();
follow();
